"""The core's own exception: it imports nothing of the other packages, so that it can be used without them."""


class DistillError(ValueError):
    """A signal, an objective or a teacher cannot be used as asked. The message is one sentence a user can act on."""


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line: the first of its message, its type's name where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
