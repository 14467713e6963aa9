"""Driving and labelling: specialists' answers do not depend on who asks, students really drive, memory is right."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from distill.core.collect import CollectionPlan
from distill.locomotion import recipe
from distill.locomotion.course import PIECE, AnywhereCollector, CourseCollector, as_bundle, between_obstacles
from distill.locomotion.drive import Memory, RecordingDriver, Wheel, actions_to_targets, targets_to_actions
from distill.locomotion.options import Options
from distill.locomotion.student import TransformerStudent, student_skills
from distill.locomotion.tasks import TaskCollector
from policies.evaluation.course_run import CourseWorlds
from policies.skills.library import load_skills, paces_of, response_of
from policies.transformer import TransformerConfig
from sim.course.description import official
from sim.course.generator import BETWEEN, short
from sim.envs.worlds import world_seeds
from sim.robots.description import default_robot

SMALL = TransformerConfig(width=32, layers=1, heads=2, channels=4)


@pytest.fixture(scope="module")
def teachers():
    return load_skills("specialists")


def driven(teachers, steps: int, beta: float = 1.0, student=None, noise: float = 0.0, worlds: int = 4):
    driver = RecordingDriver(teachers, student, worlds, beta, seed=3, noise=noise)
    course = CourseWorlds(official(), teachers, world_seeds(5, worlds), randomize=True, policy=driver)
    applied = []
    step = driver.step
    driver.step = lambda *a: applied.append(step(*a)) or applied[-1]  # type: ignore[method-assign]
    for _ in range(steps):
        course.step()
    return driver, course, np.array(applied)


def test_specialists_drive_as_they_do_without_a_recorder(teachers):
    """Through the hand-overs on the A-frame as well; their clock is turned by frequencies that are one step old."""
    _, course, _ = driven(teachers, 400)
    plain = CourseWorlds(official(), teachers, world_seeds(5, 4), randomize=True)
    for _ in range(400):
        plain.step()
    assert {"walk", "climb"} <= set(course.traces[0].skill)
    apart = np.linalg.norm(course.robots.pose[:, :2] - plain.robots.pose[:, :2], axis=1)
    assert np.median(apart) < 0.6, apart  # one robot's length, after eight seconds of a chaotic motion
    assert [n.passed for n in course.navigators] == [n.passed for n in plain.navigators]


def test_what_is_recorded_is_what_was_applied(teachers):
    driver, _, applied = driven(teachers, 60)
    fields, episodes = driver.recorder.episodes()
    assert episodes == [60] * 4 and fields["frames"].dtype == np.float32
    action = fields["action"].reshape(4, 60, 13).transpose(1, 0, 2)
    for step in range(60):
        assert actions_to_targets(driver.robot, action[step, :, :12]) == pytest.approx(applied[step], abs=1e-5)
    last = fields["frames"].reshape(4, 60, -1)[:, 1:, 30:42]
    assert last == pytest.approx(fields["action"].reshape(4, 60, 13)[:, :-1, :12], abs=1e-5)


def test_noise_moves_the_robot_but_not_the_labels(teachers):
    driver, _, applied = driven(teachers, 40, noise=0.5)
    fields, _ = driver.recorder.episodes()
    wanted = actions_to_targets(driver.robot, fields["action"][:, :12]).reshape(4, 40, 12).transpose(1, 0, 2)
    size = np.abs(applied - wanted).mean((0, 2))
    assert (size < 0.5 * 0.3).all() and size.max() > 0.01


class Still:
    """A student that always asks for the default pose and a clock of 3 Hz."""

    def __init__(self, inner) -> None:
        self.robot, self.layout = inner.robot, inner.layout

    def __call__(self, observation):
        return np.tile(np.array([0.0] * 12 + [0.5], np.float32), (len(observation), 1))


def test_a_student_at_the_wheel_drives_and_turns_the_clock(teachers):
    student = Still(as_bundle(TransformerStudent(SMALL), teachers))
    driver, _, applied = driven(teachers, 30, beta=0.0, student=student)
    assert applied == pytest.approx(np.broadcast_to(driver.robot.default_pose, applied.shape), abs=1e-6)
    fields, _ = driver.recorder.episodes()
    clock = fields["frames"].reshape(4, 30, -1)[0, :, 45:47]
    moving = np.abs(clock).sum(1) > 0
    phase = np.unwrap(np.arctan2(clock[moving][:, 0], clock[moving][:, 1]))
    assert np.diff(phase)[1:] / (2 * np.pi * 0.02) == pytest.approx(3.0, abs=1e-3)
    labels = fields["action"].reshape(4, 30, 13)
    assert np.abs(labels[:, 5:, :12]).max() > 0.3, "the specialists still say what they would do"


def test_a_student_moves_its_targets_no_further_than_it_may(teachers):
    student = as_bundle(TransformerStudent(SMALL, target_step=0.001), teachers)
    driver, _, applied = driven(teachers, 30, beta=0.0, student=student)
    steps = np.abs(np.diff(applied, axis=0))
    assert steps.max() <= 0.001 + 1e-6 and (steps > 0.00099).any()
    fields, _ = driver.recorder.episodes()
    last = fields["frames"].reshape(4, 30, -1)[:, 1:, 30:42].transpose(1, 0, 2)
    for step in range(29):
        assert actions_to_targets(driver.robot, last[step]) == pytest.approx(applied[step], abs=1e-5)


def test_the_wheel_gives_the_teacher_its_share():
    wheel = Wheel(400, 12, 0.3, seed=1)
    shares = [wheel.turn().mean() for _ in range(200)]
    assert np.mean(shares) == pytest.approx(0.3, abs=0.05)
    assert Wheel(50, 12, 1.0, 0).turn().all() and not Wheel(50, 12, 0.0, 0).turn().any()
    assert (Wheel(300, 12, 1.0, 0, noise=0.2).sigma <= 0.2).all()


def test_actions_and_targets_are_inverse(teachers):
    robot = teachers.robot
    targets = robot.default_pose + np.random.default_rng(0).uniform(-0.4, 0.4, (20, 12)).astype(np.float32)
    targets = np.clip(targets, robot.joint_lower, robot.joint_upper)
    assert actions_to_targets(robot, targets_to_actions(robot, targets)) == pytest.approx(targets, abs=1e-6)


def test_a_memory_that_begins_again_is_filled_with_its_first_frame(teachers):
    memory = Memory(default_robot(), 2, None)
    ones, command, clock = np.ones((2, 42), np.float32), np.zeros((2, 3), np.float32), np.zeros((2, 2), np.float32)
    heights = np.zeros((2, 104), np.float32)
    for k in range(3):
        memory.see(k * ones, command, clock, heights)
    memory.last_action[:] = 5.0
    memory.begin(np.array([True, False]))
    memory.see(7 * ones, command, clock, heights)
    assert (memory.history[0, :, :30] == 7).all() and (memory.history[0, :, 30:42] == 0).all()
    assert memory.history[1, :4, 0].tolist() == [7, 2, 1, 0] and memory.history[1, 0, 30] == 5


@pytest.mark.parametrize("skill", ["walk", "climb", "jump"])
def test_every_skills_ground_gives_rows_that_a_student_can_learn(teachers, skill):
    found = TaskCollector(skill, teachers).collect(None, CollectionPlan(0, 1.0, 400, 3))
    assert sum(found.episodes) == len(found.fields["frames"]) == 400
    assert found.fields["frames"].shape[1] == 47 and found.fields["heights"].shape[1] == 104
    assert np.isfinite(found.fields["action"]).all() and found.measured["gain"] > 0
    again = TaskCollector(skill, teachers).collect(None, CollectionPlan(0, 1.0, 400, 3))
    assert all((again.fields[name] == values).all() for name, values in found.fields.items())


def test_on_its_own_ground_a_student_is_labelled_by_the_specialist(teachers):
    torch.manual_seed(0)
    student = TransformerStudent(SMALL)
    student.module.eval()
    found = TaskCollector("walk", teachers).collect(student, CollectionPlan(1, 0.0, 600, 3))
    alone = TaskCollector("walk", teachers).collect(None, CollectionPlan(0, 1.0, 600, 3))
    assert not np.array_equal(found.fields["frames"], alone.fields["frames"])
    assert found.measured["gain"] < alone.measured["gain"]
    assert np.abs(found.fields["action"]).mean() > 0.1


def test_the_course_gives_labelled_runs(teachers):
    found = CourseCollector(teachers, [official()]).collect(None, CollectionPlan(0, 1.0, 2000, 11))
    assert set(np.unique(found.fields["skill"])) == {0, 1, 2}
    assert sum(found.episodes) == len(found.fields["skill"]) and 0 < found.measured["gain"] <= 1


def test_runs_of_courses_can_have_weak_motors_and_nominal_robots(teachers, monkeypatch):
    limits = []
    worlds = CourseWorlds.__init__

    def begin(self, *given, **named):
        limits.append((named["torque_limit"], named["randomize"]))
        worlds(self, *given, **named)

    monkeypatch.setattr(CourseWorlds, "__init__", begin)
    monkeypatch.setattr("distill.locomotion.course.CourseCollector.longest", 0.1)
    course, between = recipe.simulated(Options(weak=12.0, between=1)).collectors[:2]
    course.collect(None, CollectionPlan(1, 1.0, 2000, 11))
    assert limits == [(None, True), (12.0, True)]
    limits.clear()
    between.collect(None, CollectionPlan(1, 1.0, 2000, 11))
    assert limits == [(None, True), (12.0, True)] * (len(limits) // 2) and limits, "hand-overs as whole courses"
    limits.clear()
    recipe.simulated(Options(nominal=True)).collectors[0].collect(None, CollectionPlan(1, 1.0, 2000, 11))
    assert limits == [(None, True), (None, False)]
    limits.clear()
    recipe.simulated(Options()).collectors[0].collect(None, CollectionPlan(1, 1.0, 1000, 11))
    assert limits == [(None, True)]


def test_ways_between_two_obstacles_are_a_domain_of_their_own(teachers):
    between = between_obstacles(teachers, 2)
    kinds = [{obstacle.KIND for obstacle in course.obstacles[1:-1]} for course in between.courses]
    assert all(kinds.count(set(two)) == 2 for two in combinations(BETWEEN, 2)) and len(kinds) == 6
    found = between.collect(None, CollectionPlan(1, 1.0, 1000, 11))
    assert sum(found.episodes) == len(found.fields["skill"]) and len(found.episodes) >= 4
    assert 0 < found.measured["gain"] <= 1 and 0 <= found.measured["finished"] <= 1


def test_rounds_take_the_other_courses_in_turn(teachers):
    courses = [short(["jump"], seed) for seed in range(5)]
    collector = CourseCollector(teachers, courses, always=1, others=2)
    names = [[course.name for course in collector.courses_of(k)] for k in range(4)]
    assert names[0] == [f"jump:{k}" for k in range(5)]
    assert names[1:] == [[f"jump:{k}" for k in few] for few in ((0, 3, 4), (0, 1, 2), (0, 3, 4))]
    alone = CourseCollector(teachers, courses[:1])
    assert alone.courses_of(3) == (courses[0],)


def test_a_student_is_scored_with_the_paces_and_the_response_of_its_teachers():
    go2 = load_skills("specialists", "unitree_go2")
    small = TransformerConfig(joints=go2.robot.joints, width=32, layers=1, heads=2, channels=4)
    student = student_skills(as_bundle(TransformerStudent(small), go2))
    fastest = student.bundles[0].metadata.command_ranges["forward"][1]  # a climber may have been trained on more
    theirs = replace(paces_of(go2), climb=min(paces_of(go2).climb, fastest))
    assert paces_of(student) == theirs != paces_of(load_skills())
    assert response_of(student) == response_of(go2) != response_of(load_skills())


# --- from anywhere ----------------------------------------------------------------------------------------------------


def test_pieces_of_courses_begin_all_along_the_way_and_come_to_every_obstacle(teachers):
    """Robots begin at rest, where they walk and have room to; their teachers keep them on their feet."""
    collector = AnywhereCollector(teachers, [official()], threads=1)
    found = collector.collect(None, CollectionPlan(0, 1.0, 40 * 200, 3))
    assert found.measured["gain"] > 0.9
    assert set(np.unique(found.fields["skill"]).tolist()) == set(range(len(teachers.bundles)))
    assert max(found.episodes) <= 1 + PIECE / teachers.robot.control_period
    worlds = CourseWorlds(official(), teachers, np.arange(30), threads=1)
    places = worlds.navigators[0].starts()
    path = worlds.navigators[0].path
    begun = np.random.default_rng(0).choice(places, 30)
    worlds.begin_along(begun)
    here = np.array([path.xy[np.abs(path.s - s).argmin()] for s in begun])
    assert np.abs(worlds.robots.pose[:, :2] - here).max() < 0.2  # drawn start offsets
    assert places.max() - places.min() > 8.0
    for navigator, pose in zip(worlds.navigators, worlds.robots.pose, strict=True):
        assert navigator.step(pose, worlds.dt).skill == "walk"
