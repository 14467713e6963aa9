"""Planned routes that are kept: those of the shipped courses beside this file, a user's own in the cache folder.

Planning takes seconds, following a route none. A kept route counts only if it was planned for this course, this robot's
outline, these skills and paces by this planner: its file holds a digest of all of them, and a checksum.
Whatever is not exactly that is planned again. After a change of the planner `python -m policies.navigation.route_cache`
plans the shipped courses anew.
"""

import argparse
import ast
import contextlib
import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from policies.navigation.paces import WEAK, WEAK_SHARE, Paces
from policies.navigation.route import plan
from sim.course.description import SKILLS, Course, Waypoint
from sim.reading import read_text
from sim.robots.footprint import Footprint

FORMAT = 1
SHIPPED = Path(__file__).parent / "shipped"
"""Routes that come with the package."""
VARIABLE = "BARKOUR_CACHE"
"""Environment variable with the folder for a user's own routes; empty keeps none."""
KEPT = 500
"""Files in that folder; the oldest make room."""
LARGEST = 1_000_000
"""Bytes; a larger file is no route."""
PLANNER, ROOTS = "policies.navigation.route", ("sim", "policies")
"""The module that plans, and the packages whose modules count where it imports them."""


@lru_cache(maxsize=16)
def planned(course: Course, footprint: Footprint, skills: tuple[str, ...], paces: Paces) -> tuple[Waypoint, ...]:
    """The route over a course for a robot with this outline and these skills: kept, or planned and then kept.

    Raises:
      InputError: there is no such route, see `policies.navigation.route.plan`.
    """
    own = bool(course.route)  # nothing to plan
    return settled((plan if own else _kept_or_planned)(course, footprint, skills, paces))


def settled(route: Sequence[Waypoint]) -> tuple[Waypoint, ...]:
    """The route in tenths of a millimetre.

    A planned route's last digits depend on the linear algebra of the machine that planned it; a run must not.
    """
    return tuple(
        replace(
            w, x=round(w.x, 4), y=round(w.y, 4), speed=round(w.speed, 4), yaw=None if w.yaw is None else round(w.yaw, 4)
        )
        for w in route
    )


def _kept_or_planned(
    course: Course, footprint: Footprint, skills: tuple[str, ...], paces: Paces
) -> tuple[Waypoint, ...]:
    key = key_of(course, footprint, skills, paces)
    folder = user_folder()
    for file in [*sorted(SHIPPED.glob("*.json")), *([folder / f"{key}.json"] if folder else [])]:
        route = read(file, key)
        if route:
            return route
    route = plan(course, footprint, skills, paces)
    if folder is not None:
        keep(folder / f"{key}.json", key, course.name, route)
        _make_room(folder)
    return route


def user_folder() -> Path | None:
    """Where a user's own routes are kept: `BARKOUR_CACHE`, else `barkour/routes` in the system's folder for caches;
    None where that is nowhere."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        return Path(given) if given else None
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "barkour" / "routes" if base.is_absolute() else None


# --- what a route was planned for, and by what ------------------------------------------------------------------------


def key_of(course: Course, footprint: Footprint, skills: Sequence[str], paces: Paces) -> str:
    """Digest of all that a route depends on; a course's name is not among it."""
    asked = {**asdict(course), "name": ""}, asdict(footprint), sorted(skills), asdict(paces)
    return _digest([planner(), *asked])


def planner() -> str:
    """Digest of the planner: its code, and the values that its constants have now.

    Comments, docstrings and layout do not count, so that a sentence may be put right without planning anew.
    """
    values = {}
    for name in _modules():
        for key, value in vars(sys.modules[name]).items():
            data = isinstance(value, bool | int | float | str | tuple | dict | frozenset) or is_dataclass(value)
            if key.isupper() and data and " at 0x" not in repr(value):
                values[f"{name}.{key}"] = repr(value)
    return _digest([_code(), values])


@lru_cache(maxsize=1)
def _modules() -> tuple[str, ...]:
    """`PLANNER` and all of our modules that it imports, directly or not."""
    found, waiting = set(), [PLANNER]
    while waiting:
        name = waiting.pop()
        if name in found or name not in sys.modules or name.split(".")[0] not in ROOTS:
            continue
        found.add(name)
        for node in ast.walk(ast.parse(_source(name))):
            if isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
    return tuple(sorted(found))


def _source(module: str) -> str:
    file = sys.modules[module].__file__
    assert file is not None
    return Path(file).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _code() -> dict[str, str]:
    return {name: bare(_source(name)) for name in _modules()}


def bare(source: str) -> str:
    """Python code without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            said = [n for n in body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
            node.body = [n for n in body if n not in said] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=float).encode()).hexdigest()


# --- files ------------------------------------------------------------------------------------------------------------


def keep(path: Path, key: str, course: str, route: Sequence[Waypoint]) -> None:
    """Writes a route, whole or not at all; a folder that cannot be written keeps none."""
    rows = [
        [float(w.x), float(w.y), float(w.speed), w.skill, None if w.yaw is None else float(w.yaw), float(w.tolerance)]
        for w in route
    ]
    data = {"format": FORMAT, "course": course, "key": key, "planner": planner(), "checksum": _digest(rows)}
    partial: Path | None = None
    try:
        lines = ",\n  ".join(map(json.dumps, rows))  # a waypoint a line
        text = json.dumps(data, indent=1)[:-2] + f',\n "route": [\n  {lines}\n ]\n}}\n'
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".partial", delete=False, encoding="utf-8"
        ) as file:
            partial = Path(file.name)
            file.write(text)
        os.replace(partial, path)
    except (OSError, TypeError, ValueError):
        if partial is not None:
            partial.unlink(missing_ok=True)


def _make_room(folder: Path) -> None:
    """Takes the oldest routes away."""
    with contextlib.suppress(OSError):
        files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in files[:-KEPT]:
            path.unlink(missing_ok=True)


def read(path: Path, key: str) -> tuple[Waypoint, ...]:
    """The route in a file, if it is the one of this key by this planner and nothing in it was changed; else empty."""
    try:
        data = json.loads(read_text(path, LARGEST))
        if data["key"] != key:  # most shipped files are of other courses: nothing more of them is looked at
            return ()
        said = {name: data[name] for name in ("format", "key", "planner", "checksum")}
        rows = data["route"]
        if said != {"format": FORMAT, "key": key, "planner": planner(), "checksum": _digest(rows)}:
            return ()
        return tuple(_waypoint(*row) for row in rows)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ()


def _waypoint(x: Any, y: Any, speed: Any, skill: Any, yaw: Any, tolerance: Any) -> Waypoint:
    numbers = [x, y, speed, tolerance, 0.0 if yaw is None else yaw]
    if not all(type(n) is float and math.isfinite(n) for n in numbers) or min(speed, tolerance) <= 0:
        raise ValueError("not a waypoint")
    if skill not in SKILLS:
        raise ValueError("no such skill")
    return Waypoint(x, y, speed, skill, yaw, tolerance)


# --- the shipped ones -------------------------------------------------------------------------------------------------


def shipped_routes() -> dict[str, tuple[Course, Footprint, tuple[str, ...], Paces]]:
    """Routes that come with the package, by file name: the shipped courses' for the default robot, with weak motors
    too, and for every robot with bundles, as its policies run them."""
    from policies.bundle.shipped import folder
    from policies.skills.library import NAMED, load_skills, paces_of
    from sim.course import files
    from sim.robots.description import DEFAULT, default_robot, robot_folders

    names = ["official", *sorted(path.stem for path in files.SHIPPED.glob("*.yaml"))]
    kinds = [("", default_robot().footprint, Paces()), ("_weak", default_robot().footprint, WEAK)]
    for robot in robot_folders():
        own = robot != DEFAULT
        for policy in NAMED if (folder() / robot).is_dir() or not own else ():
            skills, suffix = load_skills(policy, robot), f"_{robot}_{policy}" if own else f"_{policy}"
            paces, weak = paces_of(skills), paces_of(skills, WEAK_SHARE * skills.robot.peak_torque / 2)
            if own or paces != Paces():
                kinds.append((suffix, skills.robot.footprint, paces))
            if not own and weak != WEAK:
                kinds.append((f"{suffix}_weak", skills.robot.footprint, weak))
    return {
        f"{name}{suffix}.json": (files.by_name(name), footprint, SKILLS, paces)
        for name in names
        for suffix, footprint, paces in kinds
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Plans the shipped courses anew where the planner or what it was asked for has changed, and names them. With
    `--check` it plans nothing and ends with status 1 where one would be planned. Status 2, with one line, where a
    route cannot be kept."""
    parser = argparse.ArgumentParser(description="Plans the routes of the shipped courses anew where they are old.")
    parser.add_argument("--check", action="store_true", help="name old routes only; exit status 1 where there are any")
    check = parser.parse_args(arguments).check
    old = False
    for name, asked in shipped_routes().items():
        file, key = SHIPPED / name, key_of(*asked)
        if read(file, key):
            continue
        old = True
        print(name)
        if check:
            continue
        keep(file, key, asked[0].name, plan(*asked))
        if not read(file, key):
            print(f"route_cache: cannot write to {SHIPPED}", file=sys.stderr)
            return 2
        file.chmod(0o644)  # others may read what was installed
    return int(check and old)


if __name__ == "__main__":
    sys.exit(main())
