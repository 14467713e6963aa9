"""Skills behind `--policy`: which bundles are needed, and hand-over between them without a jerk."""

import shutil

import numpy as np
import pytest

from policies.bundle.shipped import bundle_file
from policies.skills import clock, library
from policies.skills.handover import Handover
from policies.skills.library import load_skills, paces_of
from policies.skills.runner import PolicyRunner
from sim import observation as obs
from sim.course.description import SKILLS
from sim.course.terrain import pit
from sim.errors import InputError
from sim.handover import FADE
from sim.observation import Sensors
from sim.robots.description import default_robot


@pytest.fixture(scope="module")
def specialists():
    return load_skills()


def sensors(worlds: int) -> Sensors:
    quat = np.tile(np.array([1.0, 0, 0, 0], np.float32), (worlds, 1))
    zero = np.zeros((worlds, 12), np.float32)
    return Sensors(
        quat, np.zeros((worlds, 3), np.float32), np.tile([0.0, 0.5, 1.0], (worlds, 4)).astype(np.float32), zero
    )


def drive(policy: PolicyRunner, users: list[int], steps: int, speed: float = 0.8) -> np.ndarray:
    """Joint targets `[steps, worlds, 12]` with the robots driven by `users`."""
    n = len(users)
    command = np.tile(np.array([speed, 0, 0], np.float32), (n, 1))
    flat = lambda layout: np.zeros((n, layout.height_size), np.float32)  # noqa: E731
    return np.stack([policy.step(sensors(n), command, np.array(users), flat).copy() for _ in range(steps)])


def test_every_skill_has_its_own_bundle(specialists):
    assert specialists.able == SKILLS and len(specialists.bundles) == 3
    for skill in SKILLS:
        assert specialists.bundles[specialists.uses[skill]].metadata.skill == skill


@pytest.mark.parametrize("missing", SKILLS)
def test_a_skill_without_a_bundle_is_refused_in_one_sentence(tmp_path, monkeypatch, missing):
    for skill in SKILLS:
        if skill != missing:
            shutil.copy(bundle_file(skill), tmp_path / f"{skill}.onnx")
    monkeypatch.setattr(library, "bundle_file", lambda name, robot: tmp_path / f"{name}.onnx")
    with pytest.raises(InputError, match=f"the skill '{missing}' has no bundle"):
        load_skills()


def test_a_policy_that_is_told_of_other_targets_has_asked_for_them():
    """The generalist's actions move its targets by more than the robot's own scale."""
    runner = PolicyRunner(load_skills("generalist"), 1)
    wanted = drive(runner, [0], 5)[-1]
    other = (wanted + 0.05).astype(np.float32)
    runner.adopt(other)
    policy = runner.policies[0]
    bundle = policy.bundle
    asked = obs.joint_targets(
        np, bundle.robot, bundle.gait, policy.last_action, policy.phase, np.zeros((1, 3), np.float32), np.zeros(1)
    )
    assert asked == pytest.approx(other, abs=1e-5)
    assert policy.targets == pytest.approx(other)


def test_targets_fade_from_one_skill_to_the_next(specialists):
    walk, jump = specialists.uses["walk"], specialists.uses["jump"]
    policy = PolicyRunner(specialists, 2)
    before = drive(policy, [walk, walk], 10)[-1]
    after = drive(policy, [jump, walk], FADE + 3)
    assert policy.jumps.shape == (2, 2) and policy.jumps[1].max() == 0
    faded, bare = policy.jumps[0]
    assert faded == pytest.approx(np.abs(after[0, 0] - before[0]).max(), abs=1e-6)
    assert 0 < faded < 0.5 * bare
    alone = PolicyRunner(specialists, 1)
    drive(alone, [walk], 10)
    assert not alone.changed.any() and alone.jumps.max() == 0


def test_after_the_hand_over_the_new_skill_drives_alone(specialists):
    walk, climb = specialists.uses["walk"], specialists.uses["climb"]
    policy = PolicyRunner(specialists, 1)
    drive(policy, [walk], 5)
    drive(policy, [climb], FADE - 1)
    seen: list[np.ndarray] = []
    inner = policy.policies[climb].step
    policy.policies[climb].step = lambda *a: seen.append(inner(*a)) or seen[-1]  # type: ignore[method-assign]
    fading, alone = (drive(policy, [climb], 1)[0] for _ in range(2))
    assert np.abs(fading - seen[0]).max() > 1e-3
    np.testing.assert_array_equal(alone, seen[1])


def test_what_is_faded_stays_within_the_joints_ranges_and_leaves_other_robots_alone():
    robot = default_robot()
    handover = Handover(robot, 2)
    low, high = (np.tile(ends, (2, 1)).astype(np.float32) for ends in (robot.joint_lower, robot.joint_upper))
    handover.blend(high, np.zeros(2, bool))
    changed, asked = np.array([True, False]), np.stack([low[0], high[1]])
    previous = handover.targets
    for step in range(FADE + 1):
        targets = handover.blend(asked, changed & (step == 0))
        assert (targets >= low).all() and (targets <= high).all()
        np.testing.assert_array_equal(targets[1], high[1])
        assert (targets[0] < previous[0]).all()  # further on its way in every step
        previous = targets
    np.testing.assert_array_equal(targets[0], low[0])
    assert not handover.jumps[1].any()
    np.testing.assert_array_equal(handover.blend(high + 1.0, np.zeros(2, bool)), high)


def test_a_jumper_is_taken_over_only_when_its_bound_has_landed(specialists):
    walk, jump = specialists.uses["walk"], specialists.uses["jump"]
    begin, length = clock.LANDED
    waits = []
    for steps in range(20, 40):
        policy = PolicyRunner(specialists, 1)
        drive(policy, [jump], steps, speed=1.5)
        wait, landed = -1, False
        while not landed:
            wait += 1
            landed = (float(policy.policies[jump].phase[0]) - begin) % 1.0 <= length
            drive(policy, [walk], 1, speed=1.5)
            assert (policy.users[0] == walk) == landed
        waits.append(wait)
    assert min(waits) == 0 and 5 < max(waits) < 25  # never longer than a cycle
    policy = PolicyRunner(specialists, 1)
    drive(policy, [jump], 20, speed=0.0)  # a clock at rest does not keep the jumper
    drive(policy, [walk], 1, speed=0.0)
    assert policy.users[0] == walk


def board(worlds: int, near: float, far: float):
    """Heights of flat ground with a pit from `near` to `far`, m ahead of the base."""

    def heights(layout: obs.Layout) -> np.ndarray:
        place = np.zeros((worlds, 2))
        pits = lambda x, y: pit(np, x - (near + far) / 2, 0 * y, np.array((far - near) / 2), 10.0)  # noqa: E731
        flat = lambda x, y: np.zeros_like(x)  # noqa: E731
        return obs.terrain_heights(np, default_robot(), layout, flat, place, place[:, 0], place[:, 0] + 0.2, 0.0, pits)

    return heights


def clocks_after_a_hand_over(specialists, heights, outside: bool = False) -> np.ndarray:
    """Phases `[5]` of robots in different phases, after a jumper has set their clocks; turned from `outside` by the
    policy's own frequency, or by the policy itself."""
    walk, jump, n = specialists.uses["walk"], specialists.uses["jump"], 5
    policy, command = PolicyRunner(specialists, n), np.tile(np.array([1.9, 0, 0], np.float32), (n, 1))
    policy.step(sensors(n), command, np.full(n, walk), heights)
    phase = np.linspace(0.0, 0.8, n).astype(np.float32)
    for own in policy.policies:
        own.phase = phase
    for _ in range(clock.SET + 1):
        phase = (phase + policy.frequency * 0.02) % 1.0
        policy.step(sensors(n), command, np.full(n, jump), heights, phase=phase if outside else None)
        if not outside:
            phase = np.asarray(policy.policies[jump].phase)
    assert not policy.clock.slip.any()
    return phase


def spread(phases: np.ndarray) -> float:
    """1 where clocks stand anywhere, 0 where they agree."""
    return 1.0 - abs(np.exp(2j * np.pi * phases).mean())


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("far", [1.9, 2.5])
def test_a_jumper_that_takes_over_sets_the_clock_for_the_board(specialists, far, outside):
    phases = clocks_after_a_hand_over(specialists, board(5, 1.5, far), outside)
    assert spread(phases) < 0.06
    flat = clocks_after_a_hand_over(specialists, board(5, 9.0, 9.0), outside)
    assert spread(flat) > 0.9


def test_the_clock_that_is_set_depends_on_the_distance(specialists):
    near, farther = (clocks_after_a_hand_over(specialists, board(5, d, d + 0.5))[0] for d in (1.6, 1.8))
    assert (near - farther) % 1.0 == pytest.approx(0.2 / 0.76, abs=0.06)  # a stride is 0.76 m


def test_a_hand_over_shares_the_memory(specialists):
    policy = PolicyRunner(specialists, 2)
    drive(policy, [0, 1], 4)
    for name in ("history", "last_action", "phase"):
        values = [getattr(p, name) for p in policy.policies]
        for other in values[1:]:
            np.testing.assert_array_equal(values[0], other)


def test_paces_stay_within_what_the_bundles_were_trained_on(specialists):
    paces = paces_of(specialists)
    for skill, speed in (("climb", paces.climb), ("jump", paces.jump)):
        assert speed <= specialists.bundles[specialists.uses[skill]].metadata.command_ranges["forward"][1]


def test_weak_motors_get_a_slower_route(specialists):
    strong, weak = paces_of(specialists), paces_of(specialists, 12.0)
    assert weak.climb < strong.climb and weak.walker.acceleration < strong.walker.acceleration
    assert paces_of(specialists, specialists.robot.peak_torque) == strong


def test_a_policy_that_cannot_stand_does_not_drive_alone():
    """A command of zero would become its slowest speed."""
    with pytest.raises(InputError):
        load_skills(str(bundle_file("jump")))
    assert load_skills(str(bundle_file("climb"))).able == ("walk", "climb")
