"""The one exception for bad input: raised where it is found, shown once at the front door in one line."""


class InputError(ValueError):
    """A file, option or value from outside cannot be used. The message is one sentence a user can act on."""


def check_utf8(value: object, what: str) -> None:
    """Raises `InputError` where a name or a path is not UTF-8: file systems take any bytes, but ROS, MuJoCo and the
    libraries that write models do not. `what` says what it is of, such as `--out`."""
    try:
        str(value).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what} {value} is not UTF-8, which is needed here: give it another name") from error


def first_line(error: Exception) -> str:
    """What an error of a library says, in one line: the first of its message, its type's name where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
