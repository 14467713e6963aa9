"""Parameters of the onboard programs: declared once with description and range, read from ROS parameter files.

A parameter file is ROS 2's own format, `NODE: {ros__parameters: {NAME: VALUE}}`, and is read with or without ROS.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from sim import strict_yaml
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
    def kind(self) -> type[Any]:
        """bool, int, float or str."""
        return cast(type[Any], type(self.default))

    def checked(self, value: Any) -> Any:
        """`value` in the parameter's own type; `InputError` where it is not one or out of range."""
        wanted = self.kind
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            try:
                value = float(value)
            except OverflowError as error:
                raise InputError(f"the parameter '{self.name}' must be a number, got one too large") from error
        if type(value) is not wanted:
            words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
            raise InputError(f"the parameter '{self.name}' must be {words[wanted]}, got {value!r}")
        if wanted is float and value != value:
            raise InputError(f"the parameter '{self.name}' must be a number, got NaN")
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


def load(
    kind: type[T], file: Path | None, node: str, namespace: str = "/", elsewhere: Collection[str] = (), **given: Any
) -> T:
    """`kind` from the sections of a parameter file that hold for a node in a namespace; `given` comes on top.

    Sections are matched as ROS does: `onboard`, `/robot1/onboard`, `/**`, `/robot1/*`, nested or written out. Those
    with the node's own name go before those with wildcards. `elsewhere` are names that other nodes know: a section with
    wildcards may hold them.

    Raises:
      InputError: the file cannot be read, is no parameter file, has no section for the node, or a value that `make`
        refuses.
    """
    values: dict[str, Any] = {}
    if file is not None:
        values = _values(kind, Path(file), node, namespace, elsewhere)
    try:
        make(kind, values)  # what `given` takes the place of is checked too
        return make(kind, values | {name: value for name, value in given.items() if value is not None})
    except InputError as error:
        raise InputError(f"{file}: {error}" if file is not None else str(error)) from error


EVERYWHERE = ("use_sim_time", "start_type_description_service")
"""Parameters that every ROS node has."""
SIMULATED_TIME = "use_sim_time is not supported: the control loop runs on this computer's time"


def _values(kind: type[Any], file: Path, node: str, namespace: str, elsewhere: Collection[str]) -> dict[str, Any]:
    """What a file says for a node."""
    name = f"{namespace.rstrip('/')}/{node}"
    holding = {where: section for where, section in sections(file).items() if matches(where, name)}
    if not holding:
        known = ", ".join(sections(file)) or "none"
        raise InputError(f"{file} has no section for the node {name}: its sections are {known}")
    own = {parameter.name for parameter in declared(kind)}
    values: dict[str, Any] = {}
    for where in sorted(holding, key=lambda where: "*" not in where):
        for key, value in holding[where].items():
            if key == "use_sim_time" and value:
                raise InputError(f"{file}: {SIMULATED_TIME}")
            if key not in own and ("*" in where and key in elsewhere or key in EVERYWHERE):
                continue
            values[key] = value
    return values


def matches(section: str, name: str) -> bool:
    """Whether a section's name, such as `/**`, is that of the node with the full name `name`."""
    parts = [{"**": "(/[^/]+)*", "*": "/[^/]+"}.get(part, "/" + re.escape(part)) for part in section.split("/")[1:]]
    return re.fullmatch("".join(parts), name) is not None


def sections(file: Path) -> dict[str, dict[str, Any]]:
    """Full name of a section, such as `/robot1/onboard` -> its parameters.

    Raises:
      InputError: the file cannot be read or is no parameter file.
    """
    content: object = strict_yaml.read(file)
    if not isinstance(content, dict):
        raise InputError(f"{file} is no parameter file: it needs NODE: ros__parameters: ...")
    found: dict[str, dict[str, Any]] = {}
    _collect(cast(dict[Any, Any], content), "", file, found)
    return found


def _collect(content: dict[Any, Any], prefix: str, file: Path, found: dict[str, dict[str, Any]]) -> None:
    """Puts the sections below `prefix` into `found`."""
    for key, value in content.items():
        name = f"{prefix}/{str(key).strip('/')}"
        if not isinstance(value, dict):
            raise InputError(f"{file} is no parameter file: '{name}' needs a section 'ros__parameters'")
        inner = dict(cast(dict[Any, Any], value))
        parameters: object = inner.pop("ros__parameters", None)
        if parameters is not None or not inner:
            if not isinstance(parameters, dict):
                raise InputError(f"{file} is no parameter file: '{name}' needs a section 'ros__parameters'")
            if name in found:
                raise InputError(f"{file} has two sections for '{name}'")
            found[name] = {str(parameter): item for parameter, item in cast(dict[Any, Any], parameters).items()}
        _collect(inner, name, file, found)
