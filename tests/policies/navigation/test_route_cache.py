"""Kept routes: shipped ones are used as they are, a user's own only if nothing about them is wrong."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from policies.navigation import route_cache, weaving
from policies.navigation.paces import WEAK, Paces
from policies.navigation.route_cache import SHIPPED, VARIABLE, key_of, planned, read, settled, shipped_routes
from sim.course.description import SKILLS, Course, EndTable, Gate, StartTable, Table, Waypoint, official
from sim.robots.description import default_robot

ROUTE = (Waypoint(1.0, 0.12345678901234567, 1.5), Waypoint(3.0, 0.0, 0.5, "climb", 0.1, 0.2))
COURSE = Course(
    "a straight one",
    (
        StartTable("start table", 1.0, (Gate((0.7, 0.4), (0.7, -0.4)),), Table((0.0, 0.0))),
        EndTable("end table", 1.0, (Gate((2.7, 0.4), (2.7, -0.4)),), Table((3.0, 0.0))),
    ),
    (0.0, 0.0, 0.0), area=(-1.0, -1.0, 4.0, 1.0),
)  # fmt: skip

FOOTPRINT = default_robot().footprint

ROUTES = shipped_routes()


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A cache of its own, and what the planner (which answers with `ROUTE`) was asked for."""
    asked = []
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(route_cache, "plan", lambda *a: asked.append(a) or ROUTE)
    planned.cache_clear()
    yield asked
    planned.cache_clear()


def again() -> tuple[Waypoint, ...]:
    planned.cache_clear()
    return planned(COURSE, FOOTPRINT, SKILLS, Paces())


@pytest.mark.parametrize("name", ROUTES)
def test_shipped_courses_need_no_planning(calls, name):
    """Fails after a change of the planner: `python -m policies.navigation.route_cache` plans them anew."""
    asked = ROUTES[name]
    kept = read(SHIPPED / name, key_of(*asked))
    assert kept and planned(*asked) == settled(kept)
    assert not calls


def test_nothing_else_is_shipped():
    assert {path.name for path in SHIPPED.glob("*.json")} == set(ROUTES)


def test_the_command_names_what_is_old_and_plans_no_other_route(calls, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(route_cache, "SHIPPED", tmp_path)
    kept, old = "kept.json", "old.json"
    asked = {name: (COURSE, FOOTPRINT, SKILLS, Paces(walk=pace)) for name, pace in ((kept, 1.4), (old, 1.5))}
    monkeypatch.setattr(route_cache, "shipped_routes", lambda: asked)
    route_cache.keep(tmp_path / kept, key_of(*asked[kept]), COURSE.name, ROUTE)
    assert route_cache.main(["--check"]) == 1 and not calls
    assert capsys.readouterr().out.split() == [old]
    assert route_cache.main([]) == 0 and calls == [asked[old]]
    assert read(tmp_path / old, key_of(*asked[old])) and route_cache.main(["--check"]) == 0


def test_help_plans_nothing(calls):
    with pytest.raises(SystemExit) as ended:
        route_cache.main(["--help"])
    assert ended.value.code == 0 and not calls


def test_a_route_is_planned_once_and_read_to_the_last_digit(calls, tmp_path):
    assert again() == settled(ROUTE) and len(calls) == 1
    assert again() == settled(ROUTE) and len(calls) == 1
    (file,) = (tmp_path / "cache").iterdir()  # and nothing half written beside it
    assert read(file, file.stem) == ROUTE


def spoil(key, value):
    return lambda text: json.dumps({**json.loads(text), key: value})


def with_route(change):
    """Another route with a checksum that is right."""

    def spoiled(text):
        data = json.loads(text)
        change(data["route"])
        return json.dumps({**data, "checksum": route_cache._digest(data["route"])})

    return spoiled


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "[" * 100_000,
        lambda text: text + " " * route_cache.LARGEST,
        lambda text: text.replace("1.5", "1.6"),
        spoil("format", 0),
        spoil("key", "0" * 64),
        spoil("planner", "0" * 64),
        spoil("route", []),
        spoil("route", None),
        with_route(lambda rows: rows.clear()),
        with_route(lambda rows: rows[0].append(1.0)),
        with_route(lambda rows: rows[0].__setitem__(0, "1.0")),
        with_route(lambda rows: rows[0].__setitem__(0, float("nan"))),
        with_route(lambda rows: rows[0].__setitem__(2, -1.0)),
        with_route(lambda rows: rows[0].__setitem__(3, "fly")),
        with_route(lambda rows: rows[0].__setitem__(3, ["walk"])),
        with_route(lambda rows: rows[0].__setitem__(4, True)),
    ],
)
def test_a_damaged_or_foreign_file_is_planned_again_and_replaced(calls, tmp_path, damage):
    again()
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_text()
    file.write_text(damage(whole))
    assert again() == settled(ROUTE) and len(calls) == 2
    assert file.read_text() == whole


def test_bytes_that_are_no_text_and_a_folder_in_the_files_place_are_no_route(calls, tmp_path):
    again()
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"\xff\xfe\x00")
    assert again() == settled(ROUTE) and len(calls) == 2
    file.unlink()
    file.mkdir()
    assert again() == settled(ROUTE) and len(calls) == 3
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_cache_that_cannot_be_written_costs_only_the_planning(calls, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert again() == again() == settled(ROUTE) and len(calls) == 2
    monkeypatch.setenv(VARIABLE, "")
    assert again() == settled(ROUTE) and len(calls) == 3

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setenv(VARIABLE, str(tmp_path / "full"))
    monkeypatch.setattr(os, "replace", full)
    assert again() == settled(ROUTE) and not list((tmp_path / "full").iterdir())


def test_the_oldest_routes_make_room(calls, tmp_path, monkeypatch):
    monkeypatch.setattr(route_cache, "KEPT", 3)
    for k in range(5):
        route_cache.keep(tmp_path / "cache" / f"{k}.json", f"{k}", "", ROUTE)
        os.utime(tmp_path / "cache" / f"{k}.json", (k, k))
    again()
    kept = {path.stem for path in (tmp_path / "cache").iterdir()}
    assert kept == {"3", "4", key_of(COURSE, FOOTPRINT, SKILLS, Paces())}


def test_a_route_belongs_to_its_course_skills_and_paces():
    key = key_of(COURSE, FOOTPRINT, SKILLS, Paces())
    assert key == key_of(replace(COURSE, name="another name"), FOOTPRINT, SKILLS[::-1], Paces())
    others = [
        key_of(replace(COURSE, start=(0.0, 0.0, 1e-12)), FOOTPRINT, SKILLS, Paces()),
        key_of(replace(COURSE, target_velocity=2.0), FOOTPRINT, SKILLS, Paces()),
        key_of(official(), FOOTPRINT, SKILLS, Paces()),
        key_of(COURSE, FOOTPRINT, SKILLS[:2], Paces()),
        key_of(COURSE, FOOTPRINT, SKILLS, WEAK),
        key_of(COURSE, FOOTPRINT, SKILLS, Paces(walk=np.nextafter(1.5, 2.0))),
    ]
    assert len({key, *others}) == len(others) + 1


def test_a_route_belongs_to_its_planner(calls, monkeypatch):
    again()
    monkeypatch.setattr(weaving, "MARGIN", 0.061)
    again()
    assert len(calls) == 2
    monkeypatch.setattr(route_cache, "_code", lambda: {"policies.navigation.route": "another"})
    again()
    assert len(calls) == 3


def test_sentences_in_the_code_are_not_the_planner():
    code = 'A = 1\n"""What A is."""\n\n\ndef f(x):\n    """Says."""\n    return x + A  # sums\n'
    said = 'A = 1\n"""Other words."""\ndef f(x):\n    "Says so."\n\n    return (x + A)\n'
    assert route_cache.bare(code) == route_cache.bare(said)
    for other in (code.replace("x + A", "x - A"), code.replace("A = 1", "A = 1.0"), code.replace("f(x)", "f(x=0)")):
        assert route_cache.bare(other) != route_cache.bare(code)


def test_the_planners_modules_are_found():
    names = set(route_cache._modules())
    assert {"policies.navigation.route", "policies.navigation.planner", "policies.navigation.weaving"} <= names
    assert "sim.course.terrain" in names and not any(name.startswith("policies.evaluation") for name in names)


@pytest.mark.parametrize("given, place", [("/somewhere", "/somewhere/barkour/routes"), ("not/absolute", None)])
def test_a_users_routes_lie_in_the_cache_folder_of_the_system(monkeypatch, given, place):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    found = route_cache.user_folder()
    assert (found and str(found)) == place
