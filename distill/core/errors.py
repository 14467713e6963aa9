"""The core's own exception: it imports nothing of the other packages, so that it can be used without them."""


class DistillError(ValueError):
    """A signal, an objective or a teacher cannot be used as asked. The message is one sentence a user can act on."""
