"""The one exception for bad input: raised where it is found, shown once at the front door in one line."""


class InputError(ValueError):
    """A file, option or value from outside cannot be used. The message is one sentence a user can act on."""


def first_line(error: Exception) -> str:
    """What an error of a library says, in one line: the first of its message, its type's name where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
