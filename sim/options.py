"""Options of commands: frozen dataclasses whose numbers have ranges, checked before any work.

    Seed = Annotated[int, Range(0, 2**31 - 1)]

    @dataclass(frozen=True)
    class WalkOptions(Options):
        seed: Seed = 0
        minutes: Annotated[float, Range(0, 60, above=True)] | None = None

`WalkOptions(seed=-1)` raises `InputError`, on the command line and from Python alike.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, dataclass, fields
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from sim.errors import InputError, check_utf8


@dataclass(frozen=True)
class Range:
    """The numbers that an option may have: finite, both ends included, without the low end where `above`."""

    low: float
    high: float
    above: bool = False

    def __contains__(self, value: Any) -> bool:
        if not isinstance(value, (int, float)) or (isinstance(value, float) and not math.isfinite(value)):
            return False  # whole numbers are compared as they are: a float does not hold every one
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        return f"{'above ' if self.above else ''}{_words(self.low)}..{_words(self.high)}"


Seed = Annotated[int, Range(0, 2**31 - 1)]
"""What every generator of random numbers here takes, those of ROS parameters and of JAX included."""
WorldSeed = Annotated[int, Range(0, 2**63 - 1)]
"""Of a simulated world, as `barkour evaluate` lists them."""
Threads = Annotated[int, Range(0, 1024)]
"""0 takes every core."""
Torque = Annotated[float, Range(0, 1000, above=True)]
"""Peak torque of a joint, N m."""
Budget = Annotated[float, Range(0, 1, above=True)]
"""A share of the full length."""


@dataclass(frozen=True)
class Options:
    """Options of one command. A field `Annotated[int | float, Range(...)]`, alone, with None or in a tuple, is held to
    its range; a text or path must not be empty where the default is not, and holds no NUL."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for field in fields(self):
            value = getattr(self, field.name)
            for item in value if isinstance(value, tuple) else (value,):
                self._check(field, hints[field.name], item)
            if value == () and field.default not in (MISSING, ()):
                raise InputError(f"{flag(field.name)} needs at least one value")

    def _check(self, field: Field[Any], hint: Any, value: Any) -> None:
        name = flag(field.name)
        allowed = range_of(hint)
        if allowed is not None and value is not None and value not in words_in(hint):
            whole = int in types_in(hint)
            if value not in allowed or isinstance(value, bool) or (whole and not isinstance(value, int)):
                kind = "a whole number" if whole else "a number"
                least = "more than" if allowed.above else "from"
                till = "and at most" if allowed.above else "to"
                raise InputError(
                    f"{name} must be {kind} {least} {_words(allowed.low)} {till} {_words(allowed.high)}, got {value}"
                )
        if types_in(hint) == [bool] and not isinstance(value, bool):
            raise InputError(f"{name} must be true or false, got {value!r}")
        text = str(value)
        if "\0" in text:
            raise InputError(f"{name} must not hold a NUL character")
        if isinstance(value, str) and not text.strip() and field.default != "":
            raise InputError(f"{name} must not be empty")

    def need_utf8(self, *paths: str) -> None:
        """Raises `InputError` where one of these options, or a text, is not UTF-8."""
        for field in fields(self):
            value = getattr(self, field.name)
            for item in value if isinstance(value, tuple) else (value,):
                if field.name in paths or isinstance(item, str):
                    check_utf8(item, flag(field.name))

    def refuse(self, names: Iterable[str], why: str) -> None:
        """Raises `InputError` where one of these options differs from its default: it would be ignored, and `why`."""
        defaults = {field.name: field.default for field in fields(self)}
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise InputError(f"{flag(name)} has no effect {why}")


def flag(name: str) -> str:
    """A field's name as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def words_of(options: Options, leaving: Iterable[str] = ()) -> list[str]:
    """What is to be written on the command line for options that are not as they are without it, but for some."""
    words: list[str] = []
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in leaving or value == field.default:
            continue
        given = () if isinstance(value, bool) else value if isinstance(value, tuple) else (value,)
        words += [flag(field.name), *map(str, given)]
    return words


def range_of(hint: Any) -> Range | None:
    """The range in an option's type."""
    return next((item for item in _parts(hint) if isinstance(item, Range)), None)


def words_in(hint: Any) -> list[Any]:
    """What an option may be beside its numbers: the values of a `Literal` in its type."""
    return [word for item in _parts(hint) if get_origin(item) is Literal for word in get_args(item)]


def types_in(hint: Any) -> list[Any]:
    """The plain types in an option's type."""
    return [item for item in _parts(hint) if isinstance(item, type)]


def takes_several(hint: Any) -> bool:
    """Whether an option takes any number of values: its type is a tuple."""
    if get_origin(hint) is Annotated:
        return takes_several(hint.__origin__)
    return get_origin(hint) is tuple


def _parts(hint: Any) -> Iterator[Any]:
    """A type's members and what is written beside them in `Annotated`, through unions and tuples."""
    if get_origin(hint) is Annotated:
        yield from _parts(hint.__origin__)
        yield from hint.__metadata__
    elif get_origin(hint) in (Union, UnionType, tuple):
        for item in get_args(hint):
            yield from _parts(item)
    else:
        yield hint


def _words(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"
