"""Courses as YAML files: load with one clear sentence for whatever is wrong, save without losing a digit."""

import math
import types
import typing
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from sim.course import Course, official
from sim.errors import InputError


def save(course: Course, path: Path) -> None:
    """Writes a course; `load` returns an equal one."""
    text = yaml.safe_dump(_plain(asdict(course)), sort_keys=False)
    try:
        path.write_text(text)
    except OSError as error:
        raise InputError(f"cannot write the course to {path}: {error.strerror}") from error


def load(path: Path) -> Course:
    """Reads a course. Raises `InputError` naming the key, the value and what was expected."""
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the course {path}: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise InputError(f"course {path} is not valid YAML{where}: {getattr(error, 'problem', error)}") from error
    try:
        return _build(Course, data, "course")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def by_name(name: str) -> Course:
    """`official` or a YAML file's path."""
    return official() if name == "official" else load(Path(name))


def _plain(value: Any) -> Any:
    """Tuples as lists, so that YAML stays plain."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _build(kind: Any, data: Any, where: str) -> Any:
    """`data` from YAML as an instance of the annotated type `kind`."""
    if is_dataclass(kind):
        return _build_dataclass(kind, data, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if data is None:
            return None
        return _build(next(a for a in arguments if a is not type(None)), data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise InputError(f"'{where}' must be a list, got {data!r}")
        if arguments[-1] is Ellipsis:
            return tuple(_build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
        if len(data) != len(arguments):
            raise InputError(f"'{where}' must have {len(arguments)} numbers, got {data!r}")
        return tuple(_build(a, item, f"{where}[{i}]") for i, (a, item) in enumerate(zip(arguments, data, strict=True)))
    if kind is float:
        if isinstance(data, bool) or not isinstance(data, (int, float)) or not math.isfinite(data):
            raise InputError(f"'{where}' must be a finite number, got {data!r}")
        return float(data)
    if not isinstance(data, kind):
        raise InputError(f"'{where}' must be a {kind.__name__}, got {data!r}")
    return data


def _build_dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise InputError(f"'{where}' must be a mapping, got {data!r}")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    for key in data:
        if key not in known:
            raise InputError(f"unknown key '{key}' in '{where}': known are {', '.join(known)}")
    for f in fields(kind):
        if f.default is MISSING and f.default_factory is MISSING and f.name not in data:
            raise InputError(f"'{where}' lacks the key '{f.name}'")
    return kind(**{key: _build(hints[key], value, f"{where}.{key}") for key, value in data.items()})
