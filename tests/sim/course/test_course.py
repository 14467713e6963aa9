"""The course: its figures, its files, its checks, and its ground against the physics scene."""

import re
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import yaml

from sim.course.description import Board, Course, EndTable, Gate, Pole, StartTable, Table, Waypoint, official
from sim.course.files import SHIPPED, SIZES, by_name, load, save
from sim.course.scene import course_model
from sim.course.score import score_log
from sim.course.terrain import Ramp, footprint
from sim.errors import InputError
from sim.robots.description import default_robot


def test_the_ground_is_what_rays_hit_in_the_scene():
    course = official()
    model = course_model(course, default_robot())
    data = mujoco.MjData(model)
    data.qpos[:3] = (-20, -20, 1)  # the robot out of the way
    mujoco.mj_forward(model, data)
    rng = np.random.default_rng(0)
    xy = rng.uniform((-0.5, -5.5), (5.5, 0.5), (10_000, 2))
    clear = np.ones(len(xy), bool)
    for pole in course.poles:
        clear &= np.hypot(xy[:, 0] - pole.x, xy[:, 1] - pole.y) > pole.radius
    geom = np.zeros(1, np.int32)
    hit = np.array([3 - mujoco.mj_ray(model, data, [x, y, 3.0], [0, 0, -1.0], None, 1, -1, geom) for x, y in xy])
    wrong = np.abs(hit - course.height(xy[:, 0], xy[:, 1])) > 1e-6
    # a ramp's deck stands a few mm beyond its foot and ridge because it has thickness
    near_edge = np.zeros(len(xy), bool)
    for piece in course.terrain().pieces:
        if isinstance(piece, Ramp):
            along = (xy - piece.center) @ np.array([np.cos(piece.yaw), np.sin(piece.yaw)])
            near_edge |= np.abs(np.abs(along) - piece.size[0] / 2) < 0.03
    assert clear.sum() > 9900
    assert not (wrong & clear & ~near_edge).any()


def test_official_figures():
    course = official()
    assert course.a_frame is not None and course.a_frame.apex == pytest.approx(1.0)
    ends = course.a_frame.half_length
    for gate, sign in ((course.obstacles[2].gates[0], -1), (course.obstacles[2].gates[2], 1)):
        axis = np.array([np.cos(course.a_frame.yaw), np.sin(course.a_frame.yaw)])
        foot = np.array(course.a_frame.center) + sign * ends * axis
        assert np.linalg.norm(foot - gate.center) < 0.03  # the feet stand at the outer gates
    assert sum(o.nominal_size for o in course.obstacles) == 18
    assert float(course.height(0.5, -0.5)) == pytest.approx(0.1)
    assert float(course.height(2.75, -4.5)) == pytest.approx(0.001)
    gaps = [np.hypot(a.x - b.x, a.y - b.y) for a, b in zip(course.poles, course.poles[1:], strict=False)]
    assert np.allclose(gaps, (0.825, 0.728, 0.632, 0.539), atol=1e-3)


def test_files_round_trip_exactly(tmp_path):
    course = official()
    save(course, tmp_path / "course.yaml")
    assert load(tmp_path / "course.yaml") == course
    assert by_name("official") == course


def edited(tmp_path, edit) -> Course:
    """The official course after `edit(data)` of its YAML data."""
    save(replace(official(), route=(Waypoint(1.4, -0.4),)), tmp_path / "a.yaml")
    data = yaml.safe_load((tmp_path / "a.yaml").read_text())
    edit(data)
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(data))
    return load(tmp_path / "b.yaml")


def set_at(*path):
    def edit(data):
        *way, last, value = path
        for key in way:
            data = data[key]
        data[last] = value

    return edit


def beside(data):
    """Official YAML data with geometry beside the obstacles, as files had it up to version 0.1."""
    table, poles, frame, jump, end = data["obstacles"]
    data["start_table"], data["end_table"] = table.pop("table"), end.pop("table")
    data["poles"], data["a_frame"], data["board"] = poles.pop("poles"), frame.pop("frame"), jump.pop("board")
    del data["extra_poles"]


def test_files_with_geometry_beside_the_obstacles_are_read(tmp_path):
    assert edited(tmp_path, beside) == replace(official(), route=(Waypoint(1.4, -0.4),))
    two_boards = lambda d: (beside(d), d["obstacles"].append({**d["obstacles"][3]}))  # noqa: E731
    with pytest.raises(InputError, match="'course.board' stands beside the obstacles: give each 'jump' its own"):
        edited(tmp_path, two_boards)
    with pytest.raises(InputError, match="'course.a_frame' stands beside"):
        edited(tmp_path, lambda d: (beside(d), d["obstacles"].pop(2)))
    loose = edited(tmp_path, lambda d: (beside(d), d["obstacles"].pop(1)))
    assert loose.extra_poles == official().poles == loose.poles


@pytest.mark.parametrize(
    "edit, message",
    [
        (set_at("colour", "red"), "unknown key 'colour'"),
        (set_at("obstacles", 3, "board", "lenght", 1.0), r"unknown key 'lenght' in 'course.obstacles\[3\].board'"),
        (lambda d: d["obstacles"][4].pop("table"), r"'course.obstacles\[4\]' lacks the key 'table'"),
        (lambda d: d["obstacles"].pop(4), "needs one 'end table', got 0"),
        (lambda d: d["obstacles"].append(d["obstacles"][0]), "needs one 'start table', got 2"),
        (set_at("target_velocity", "fast"), "must be a finite number, got 'fast'"),
        (set_at("target_velocity", float("nan")), "must be a finite number"),
        (set_at("target_velocity", True), "must be a finite number"),
        (set_at("start", [0.0, 1.0]), "must have 3 numbers"),
        (set_at("obstacles", 1, "poles", "none"), "must be a list"),
        (set_at("obstacles", 0, "gates", 0, "left", [1.4, -0.7]), "zero length"),
        (set_at("obstacles", 1, "name", "tunnel"), "unknown obstacle 'tunnel'"),
        (set_at("obstacles", 1, "name", "jump"), r"unknown key 'poles' in 'course.obstacles\[1\]'"),
        (set_at("obstacles", 1, "name", "jump 0"), "unknown obstacle 'jump 0'"),
        (set_at("obstacles", 1, "name", 7), "unknown obstacle '7'"),
        (set_at("obstacles", 1, "name", None), "unknown obstacle 'None'"),
        (lambda d: d["obstacles"][1].pop("name"), r"lacks the key 'name'|unknown key 'poles'"),
        (set_at("obstacles", 3, "board", None), r"'course.obstacles\[3\].board' must be a mapping"),
        (set_at("obstacles", 3, "board", "center", [4.0, -4.5]), "'end table' and 'jump board' overlap"),
        (set_at("obstacles", 1, "poles", 0, "x", 0.9), "'start table' and 'pole 1' overlap"),
        (set_at("obstacles", 1, "poles", 0, "radius", -1.0), "positive radius"),
        (set_at("route", 0, "x", 1.7), "waypoint 1"),
        (set_at("route", 0, "skill", "fly"), "unknown skill 'fly'"),
        (set_at("obstacles", 2, "frame", "slope", 2.0), "slope of 'a frame' must be between"),
        (set_at("obstacles", 0, "table", "height", 0.0), "positive size and height"),
        (set_at("target_velocity", 10**400), "must be a finite number"),
        (set_at("target_velocity", float("inf")), "must be a finite number, got inf"),
        (set_at("name", 3), "'course.name' must be text, got 3"),
        (set_at("obstacles", 1, "poles", []), "'weave poles' needs poles"),
        (set_at("obstacles", 2, "frame", None), r"'course.obstacles\[2\].frame' must be a mapping"),
        (set_at("obstacles", 2, "frame", "center", [4.3, -4.0]), "'end table' and 'a frame' overlap"),
        (set_at("obstacles", 1, "poles", 2, "x", 1.72), "'pole 1' and 'pole 3' overlap"),
        (set_at("area", [5.0, -5.0, 0.0, 0.0]), "lower below upper"),
        (set_at("route", 0, "tolerance", -0.1), "waypoint 1 needs positive speed and tolerance, got .* -0.1"),
        (set_at("route", 0, "speed", 1e3), "waypoint 1 needs .* speed"),
        (set_at("obstacles", 2, "gates", []), "'a frame' needs at least one gate"),
        (set_at("obstacles", 2, "nominal_size", 0), "positive nominal_size, got 0"),
    ],
)
def test_mistakes_are_named_in_one_sentence(tmp_path, edit, message):
    if message == "waypoint 1":
        both = (set_at("route", 0, "x", 1.7), set_at("route", 0, "y", -0.7))
        edit = lambda d: [e(d) for e in both]  # noqa: E731
        message = "waypoint 1 at .* is inside pole 1"
    with pytest.raises(InputError, match=message) as caught:
        edited(tmp_path, edit)
    assert "\n" not in str(caught.value)


NUMBERS = [
    ("obstacles", 0, "table", "center", 0), ("obstacles", 0, "table", "size", 1), ("obstacles", 1, "poles", 0, "x"),
    ("obstacles", 2, "nominal_size"), ("obstacles", 2, "frame", "yaw"), ("obstacles", 2, "frame", "ramp_length"),
    ("obstacles", 3, "board", "thickness"), ("obstacles", 3, "gates", 0, "left", 1), ("start", 0),
    ("target_velocity",), ("area", 2),
]  # fmt: skip


@pytest.mark.parametrize("place", NUMBERS)
def test_numbers_that_nothing_can_be_computed_of_are_refused(tmp_path, place):
    for value in (1e308, 1e30, *([1e-320, 1e-12] if set(place) & SIZES else [])):
        with pytest.raises(InputError, match="must be (at most|0 or at least)"):
            edited(tmp_path, set_at(*place, value))
    if not set(place) & SIZES:
        edited(tmp_path, set_at("start", 2, 1e-17))  # what is left of 0 where an angle was computed


BROKEN = ["a: [1,", "- 1\n- 2", "", "\x00", "[" * 3000, "[1, 2]: 3", "!!python/name:a.b c", "a: 1\n---\n"]


@pytest.mark.parametrize("text", BROKEN)
def test_malformed_files_are_refused(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError):
        load(tmp_path / "bad.yaml")
    with pytest.raises(InputError, match="cannot read the course"):
        load(tmp_path / "missing.yaml")
    with pytest.raises(InputError, match="cannot write the course"):
        save(official(), tmp_path / "no folder" / "course.yaml")


def test_aliases_may_stand_for_a_little_but_not_for_everything(tmp_path):
    save(official(), tmp_path / "a.yaml")
    text = (tmp_path / "a.yaml").read_text().replace("target_velocity: ", "target_velocity: &v ")
    text = text.replace("route: []", "").rstrip()
    (tmp_path / "a.yaml").write_text(text + "\nroute: [{x: 0.5, y: 0.0, speed: *v}]\n")
    assert load(tmp_path / "a.yaml").route[0].speed == official().target_velocity
    laughs = "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}' if k else 'x'] * 10)}]\n" for k in range(9))
    for text in (laughs, "obstacles: &a [*a]\n"):
        (tmp_path / "b.yaml").write_text(text)
        with pytest.raises(InputError, match="aliases grow too large"):
            load(tmp_path / "b.yaml")


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "\x9b31m", "\u202egnp", "", "x" * 201])
def test_a_name_that_could_write_to_a_terminal_is_refused(name):
    with pytest.raises(InputError, match="name") as found:
        replace(official(), name=name)
    assert str(found.value).isprintable()


def test_more_things_than_a_route_can_be_planned_among_are_refused():
    poles = tuple(Pole(10.0 + 0.2 * (i % 50), 0.2 * (i // 50)) for i in range(3000))
    with pytest.raises(InputError, match="things on its floor at most, got 3009"):
        replace(official(), extra_poles=poles)
    assert len(replace(official(), extra_poles=poles[:150]).poles) == 155


@pytest.mark.parametrize("value", ["1:30", "2024-01-01", "1_0", "0x10", "0o7", "010"])
def test_a_number_is_only_what_looks_like_one(tmp_path, value):
    save(official(), tmp_path / "a.yaml")
    text = (tmp_path / "a.yaml").read_text()
    (tmp_path / "a.yaml").write_text(re.sub("target_velocity: .*", f"target_velocity: {value}", text))
    with pytest.raises(InputError, match="target_velocity"):
        load(tmp_path / "a.yaml")


def test_a_key_given_twice_is_refused(tmp_path):
    save(official(), tmp_path / "a.yaml")
    text = (tmp_path / "a.yaml").read_text()
    (tmp_path / "a.yaml").write_text(text + "name: again\n")
    with pytest.raises(InputError, match=rf"in line {len(text.splitlines()) + 1}: the key 'name' is given twice"):
        load(tmp_path / "a.yaml")


def test_shipped_courses_load_and_can_be_completed():
    assert [path.stem for path in SHIPPED.glob("*.yaml")]
    for path in SHIPPED.glob("*.yaml"):
        course = by_name(path.stem)
        assert course.name == path.stem
        centers = [gate.center for obstacle in course.obstacles for gate in obstacle.gates for _ in range(2)]
        positions = [course.start[:2], *centers, *[course.end_table.center] * 8]
        result = score_log(range(len(positions)), positions, False, course)
        assert all(o.completed for o in result.obstacles.values())
        assert course.height(*course.start[:2]) == course.start_table.height
        if course.a_frame is not None:  # the ridge lies between its gates, across the way
            gates = next(o for o in course.obstacles if o.name == "a frame").gates
            x, y = gates[-1].center - gates[0].center
            assert np.cos(np.arctan2(y, x) - course.a_frame.yaw) > 0.999


def test_an_unknown_course_is_refused_with_those_known():
    with pytest.raises(InputError, match="'offical': known are official, rearranged, reversed, generated:SEED or a"):
        by_name("offical")


def test_a_course_made_in_code_is_checked_too():
    with pytest.raises(InputError, match=r"'course.obstacles\[1\].poles\[0\].x' must be a finite number, got nan"):
        official().changed("weave poles", poles=(Pole(float("nan"), 0.0),))
    with pytest.raises(InputError, match="has no obstacle 'tunnel'"):
        official().changed("tunnel", gates=())
    with pytest.raises(InputError, match="'jump' is no name for a WeavePoles"):
        official().changed("weave poles", name="jump")


def test_a_rearranged_course_can_be_built():
    course = official()
    assert course.a_frame is not None
    frame = replace(course.a_frame, yaw=course.a_frame.yaw + np.pi)
    turned = course.changed("a frame", frame=frame).changed("jump", board=Board((2.5, -4.4), yaw=0.3))
    x, y = np.random.default_rng(0).uniform((0, -3.7), (5, 0), (500, 2)).T
    assert np.allclose(turned.height(x, y), course.height(x, y))
    assert course_model(turned, default_robot()).geom("jump board").id >= 0


def test_a_small_course_needs_no_a_frame_or_board():
    gates = (Gate((1.4, 0.5), (1.4, -0.5)),)
    course = Course(
        "small",
        (
            StartTable("start table", 1.0, gates, Table((0.0, 0.0))),
            EndTable("end table", 1.0, gates, Table((3.0, 0.0))),
        ),
        (0.0, 0.0, 0.0), (Pole(2.0, 1.0),), route=(Waypoint(3.0, 0.0),), area=(-1, -1, 4, 1),
    )  # fmt: skip
    assert course.board is None and course.a_frame is None and course.board_pieces() == ()
    assert (course.pit(np.zeros(3), np.zeros(3)) == 0).all() and course.poles == (Pole(2.0, 1.0),)
    assert float(course.height(0.0, 0.0)) == pytest.approx(0.1)


def test_footprints_turn_with_yaw():
    ramp = Ramp("r", (1.0, 2.0), (2.0, 1.0), 0.0, 1.0, np.pi / 2)
    assert np.allclose(footprint(ramp).min(0), (0.5, 1.0)) and np.allclose(footprint(ramp).max(0), (1.5, 3.0))
