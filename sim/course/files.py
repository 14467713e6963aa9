"""Courses as YAML files: load with one clear sentence for whatever is wrong, save without losing a digit."""

import math
import re
import reprlib
import types
import typing
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from sim import strict_yaml
from sim.course.description import Course, official
from sim.course.generator import LARGEST_SEED, generate
from sim.course.obstacles import KINDS, Obstacle, kind_of
from sim.errors import InputError
from sim.folders import replacing
from sim.reading import read_text

SHIPPED = Path(__file__).parent / "shipped"
"""Where the courses beside the official one lie."""
GENERATED = "generated:"
MOST_COURSES = 1000
"""In one range."""
BESIDE = {
    "start_table": ("start table", "table"),
    "end_table": ("end table", "table"),
    "poles": ("weave poles", "poles"),
    "a_frame": ("a frame", "frame"),
    "board": ("jump", "board"),
}
"""Keys under which files up to version 0.1 have geometry beside the obstacles -> kind of obstacle and its own key."""

FARTHEST, SMALLEST = 1e4, 1e-4
"""A course's numbers are not larger, and its `SIZES` (m, rad, m/s) not smaller: what is computed of 1e308 or 1e-320 is
no number any more."""
SIZES = frozenset(
    "nominal_size size height radius ramp_length width length thickness slope target_velocity".split()  # noqa: SIM905
)


def save(course: Course, path: Path) -> None:
    """Writes a course, whole or not at all; `load` returns an equal one."""
    text = dumps(course)
    try:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write the course to {path}: {getattr(error, 'strerror', None) or error}") from error


def load(path: Path) -> Course:
    """Reads a course. Raises `InputError` naming the key, the value and what was expected."""
    return loads(read_text(path, strict_yaml.LARGEST, "the course"), str(path))


def dumps(course: Course) -> str:
    """A course as YAML text; `loads` returns an equal one."""
    return yaml.safe_dump(_plain(asdict(course)), sort_keys=False, allow_unicode=True, default_flow_style=None)


def loads(text: str, where: str) -> Course:
    """The course in a YAML text that came from `where`. Raises `InputError` as `load` does."""
    data = strict_yaml.loads(text, f"course {where}", aliases=True)
    try:
        return _build(Course, _present(data), "course")
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def by_name(name: str) -> Course:
    """`official`, another course that ships in `sim/course/shipped`, `generated:SEED`, or a YAML file's path.

    Raises:
      InputError: none of these; a file that is no course.
    """
    if name == "official":
        return official()
    if name.startswith(GENERATED):
        first, last = _seeds(name)
        if first != last:
            raise InputError(f"'{name}' names {last - first + 1} courses: only evaluate takes a range")
        return generate(first)
    shipped = {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}
    if name not in shipped and not Path(name).suffix and not Path(name).exists():
        known = f"official, {', '.join(shipped)}, generated:SEED or a YAML file"
        raise InputError(f"unknown course '{name}': known are {known}")
    return load(shipped.get(name, Path(name)))


def several(name: str) -> list[str]:
    """The names behind a course's name: itself, or those of `generated:FIRST-LAST`. Raises `InputError`."""
    if not name.startswith(GENERATED):
        return [name]
    first, last = _seeds(name)
    return [f"{GENERATED}{seed}" for seed in range(first, last + 1)]


def _seeds(name: str) -> tuple[int, int]:
    """First and last seed of `generated:SEED` or `generated:FIRST-LAST`."""
    match = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", name.removeprefix(GENERATED))
    if match is None:
        raise InputError(f"'{name}' must be generated:SEED or generated:FIRST-LAST, for example generated:7")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first or last - first >= MOST_COURSES or last > LARGEST_SEED:
        raise InputError(f"'{name}' must name 1 to {MOST_COURSES} seeds from 0 to {LARGEST_SEED}, the first one first")
    return first, last


def _present(data: Any) -> Any:
    """A course's YAML data with geometry that stands beside the obstacles, as in files up to version 0.1, in them."""
    if not isinstance(data, dict) or not isinstance(data.get("obstacles"), list) or not BESIDE.keys() & data.keys():
        return data
    data = {**data, "obstacles": [dict(o) if isinstance(o, dict) else o for o in data["obstacles"]]}
    for key, (kind, own) in BESIDE.items():
        value = data.pop(key, None)
        if value is None or value == []:
            continue
        mine = [o for o in data["obstacles"] if isinstance(o, dict) and kind_of(str(o.get("name"))) is KINDS[kind]]
        if not mine and key == "poles":
            data["extra_poles"] = value
        elif len(mine) != 1 or own in mine[0]:
            raise InputError(f"'course.{key}' stands beside the obstacles: give each '{kind}' its own '{own}'")
        else:
            mine[0][own] = value
    return data


def _plain(value: Any) -> Any:
    """Tuples as lists, so that YAML stays plain."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, float) else value  # numpy's float64 is a float too


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
            raise InputError(f"'{where}' must be a list, got {reprlib.repr(data)}")
        if arguments[-1] is Ellipsis:
            return tuple(_build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
        if len(data) != len(arguments):
            raise InputError(f"'{where}' must have {len(arguments)} numbers, got {reprlib.repr(data)}")
        return tuple(_build(a, item, f"{where}[{i}]") for i, (a, item) in enumerate(zip(arguments, data, strict=True)))
    if kind is float:
        number = float(data) if isinstance(data, float) or type(data) is int and abs(data) < 2**53 else math.nan
        if not math.isfinite(number):
            raise InputError(f"'{where}' must be a finite number, got {reprlib.repr(data)}")
        least = SMALLEST if re.sub(r"\[\d+\]$", "", where).rpartition(".")[2] in SIZES else 0.0
        if abs(number) > FARTHEST or 0 < abs(number) < least:
            said = f"at most {FARTHEST:g}" if abs(number) > FARTHEST else f"0 or at least {least:g}"
            raise InputError(f"'{where}' must be {said}, got {reprlib.repr(data)}")
        return number
    if not isinstance(data, kind):
        raise InputError(f"'{where}' must be {'text' if kind is str else kind.__name__}, got {reprlib.repr(data)}")
    return data


def _build_dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise InputError(f"'{where}' must be a mapping, got {reprlib.repr(data)}")
    if kind is Obstacle:
        found = kind_of(str(data.get("name")))
        if "name" in data and found is None:
            raise InputError(f"unknown obstacle '{data['name']}': known are {', '.join(KINDS)}")
        kind = found or kind
    hints = typing.get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    for key in data:
        if key not in known:
            raise InputError(f"unknown key '{key}' in '{where}': known are {', '.join(known)}")
    for f in fields(kind):
        if f.default is MISSING and f.default_factory is MISSING and f.name not in data:
            raise InputError(f"'{where}' lacks the key '{f.name}'")
    return kind(**{key: _build(hints[key], value, f"{where}.{key}") for key, value in data.items()})
