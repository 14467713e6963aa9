"""A kind of obstacle that is defined here alone: files, scene, score, planner and navigator take it as their own."""

from dataclasses import dataclass, replace
from typing import ClassVar

import mujoco
import numpy as np
import pytest
from kinematic import drive

from policies.navigation.navigator import course_navigator
from policies.navigation.obstacles import base as ways
from policies.navigation.obstacles.base import Way, axis, leads, xy
from policies.navigation.route import plan
from sim.course.description import Course, EndTable, Gate, Obstacle, StartTable, Table, Waypoint
from sim.course.files import load, save
from sim.course.obstacles.base import KINDS, registered
from sim.course.scene import course_model
from sim.course.terrain import Block, Piece
from sim.errors import InputError
from sim.robots.description import default_robot

SLOW = 0.4


@dataclass(frozen=True)
class Plank(Obstacle):
    """A low plank that is walked along."""

    center: tuple[float, float]
    length: float

    KIND: ClassVar[str] = "plank"

    def pieces(self) -> tuple[Piece, ...]:
        return (Block(self.name, self.center, (self.length, 0.5), top=0.05),)

    def completed(self, passed: int, held: bool, touched: bool) -> bool:
        return passed == len(self.gates)


class AlongPlank(Way):
    """From its first gate to its last, slowly."""

    def extended(self, ask, k, points):
        first, last, yaw = axis(ask.course.obstacles[k])
        return points + [Waypoint(*xy(place), SLOW, yaw=yaw) for place in (first, last)]


@pytest.fixture
def course():
    """Two planks between two tables."""
    registered(Plank)
    leads(Plank)(AlongPlank)
    gates = [(Gate((x, 0.4), (x, -0.4)), Gate((x + 0.8, 0.4), (x + 0.8, -0.4))) for x in (1.4, 2.8)]
    yield Course(
        "planks",
        (
            StartTable("start table", 1.0, (Gate((0.7, 0.4), (0.7, -0.4)),), Table((0.0, 0.0))),
            *(Plank("plank", 2.0, pair, (float(pair[0].center[0]) + 0.4, 0.0), 0.8) for pair in gates),
            EndTable("end table", 1.0, (Gate((4.6, 0.4), (4.6, -0.4)),), Table((5.0, 0.0))),
        ),
        (0.0, 0.0, 0.0), area=(-1.0, -1.0, 6.0, 1.0),
    )  # fmt: skip
    del KINDS["plank"]


def test_it_survives_a_file_and_its_keys_are_checked(course, tmp_path):
    save(course, tmp_path / "planks.yaml")
    assert load(tmp_path / "planks.yaml") == course
    assert [obstacle.name for obstacle in course.obstacles[1:-1]] == ["plank", "plank 2"]
    text = (tmp_path / "planks.yaml").read_text()
    (tmp_path / "planks.yaml").write_text(text.replace("length", "lenght"))
    with pytest.raises(InputError, match=r"unknown key 'lenght' in 'course.obstacles\[1\]'"):
        load(tmp_path / "planks.yaml")


def test_it_is_ground_in_the_scene(course):
    model = course_model(course, default_robot())
    top = model.geom("plank 2").pos[2] + model.geom("plank 2").size[2]
    assert model.geom("plank 2").type == mujoco.mjtGeom.mjGEOM_BOX and top == pytest.approx(0.05)
    assert course.height(3.2, 0.0) == pytest.approx(0.05)


def test_it_is_planned_and_scored_as_it_says(course):
    route = plan(course, default_robot().footprint)
    assert [w.speed for w in route].count(SLOW) == 4
    done = drive(course, course_navigator(course, route))
    assert done.result.finished and all(o.completed for o in done.result.obstacles.values())
    assert set(done.result.obstacles) == {"start table", "plank", "plank 2", "end table"}


def test_one_that_nobody_leads_over_is_walked_through(course, monkeypatch):
    monkeypatch.delitem(ways._WAYS, Plank)
    done = drive(course, course_navigator(course, plan(course, default_robot().footprint)))
    assert done.result.obstacles["plank 2"].completed


def test_the_same_place_twice_is_an_overlap(course):
    with pytest.raises(InputError, match="'plank' and 'plank 2' overlap"):
        replace(course, obstacles=(*course.obstacles[:2], course.obstacles[1], course.obstacles[-1]))


def test_generated_courses_have_none(course):
    with pytest.raises(InputError, match="have no 'plank'"):
        KINDS["plank"].place(np.random.default_rng(0), None, False, 3)  # type: ignore[arg-type]
