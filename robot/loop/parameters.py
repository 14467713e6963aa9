"""Parameters of the onboard programs: declared once with description and range, read from ROS parameter files.

A parameter file is ROS 2's own format, `NODE: {ros__parameters: {NAME: VALUE}}`, and is read with or without ROS.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sim.errors import InputError

T = TypeVar("T")


def number(default: float, low: float, high: float, description: str) -> Any:
    """A number with its range, both ends included."""
    return field(default=default, metadata={"low": low, "high": high, "description": description})


def whole(default: int, low: int, high: int, description: str) -> Any:
    """A whole number with its range, both ends included."""
    return field(default=default, metadata={"low": low, "high": high, "whole": True, "description": description})


def text(default: str, description: str) -> Any:
    """A text."""
    return field(default=default, metadata={"description": description})


def switch(default: bool, description: str) -> Any:
    """True or false."""
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True)
class Declared:
    """One parameter as a node declares it."""

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None

    @property
    def kind(self) -> type:
        """bool, int, float or str."""
        return type(self.default)

    def checked(self, value: Any) -> Any:
        """`value` in the parameter's own type; `InputError` where it is not one or out of range."""
        wanted = self.kind
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not wanted:
            words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
            raise InputError(f"the parameter '{self.name}' must be {words[wanted]}, got {value!r}")
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            raise InputError(f"the parameter '{self.name}' must lie between {self.low} and {self.high}, got {value}")
        return value


def declared(kind: type[Any]) -> tuple[Declared, ...]:
    """The parameters of a dataclass whose fields were made by `number`, `whole`, `text` and `switch`."""
    return tuple(
        Declared(f.name, f.default, f.metadata["description"], f.metadata.get("low"), f.metadata.get("high"))
        for f in fields(kind)
        if "description" in f.metadata
    )


def make(kind: type[T], values: Mapping[str, Any]) -> T:
    """A `kind` with `values` in place of its defaults; `InputError` names what is unknown, mistyped or out of range."""
    known = {parameter.name: parameter for parameter in declared(kind)}
    for name in values:
        if name not in known:
            raise InputError(f"unknown parameter '{name}': known are {', '.join(sorted(known))}")
    return kind(**{name: known[name].checked(value) for name, value in values.items()})


def load(kind: type[T], file: Path | None, node: str, **given: Any) -> T:
    """`kind` from the section of `node` (and of `/**`, for every node) in a parameter file; `given` comes on top.

    Raises:
      InputError: the file cannot be read, is no parameter file, or has a value that `make` refuses.
    """
    values: dict[str, Any] = {}
    if file is not None:
        content = _read(Path(file))
        shared, own = (_section(content, name, Path(file)) for name in ("/**", node))
        names = {parameter.name for parameter in declared(kind)}
        values = {name: value for name, value in shared.items() if name in names} | own
    try:
        return make(kind, values | {name: value for name, value in given.items() if value is not None})
    except InputError as error:
        raise InputError(f"{file}: {error}" if file is not None else str(error)) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {file}: {getattr(error, 'strerror', None) or 'it is not text'}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{file} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is no parameter file: it needs NODE: ros__parameters: ...")
    return content


def _section(content: dict[str, Any], node: str, file: Path) -> dict[str, Any]:
    section = content.get(node, content.get(f"/{node}", {"ros__parameters": {}}))
    if not isinstance(section, dict) or not isinstance(section.get("ros__parameters"), dict):
        raise InputError(f"{file} is no parameter file: '{node}' needs a section 'ros__parameters'")
    return {str(name): value for name, value in section["ros__parameters"].items() if not _nan(value)}


def _nan(value: Any) -> bool:
    if isinstance(value, float) and math.isnan(value):
        raise InputError("a parameter must not be NaN")
    return False
