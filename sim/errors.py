"""The one exception for bad input: raised where it is found, shown once at the front door in one line."""


class InputError(ValueError):
    """A file, option or value from outside cannot be used. The message is one sentence a user can act on."""
