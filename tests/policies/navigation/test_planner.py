"""The planner beside an independent optimiser, its derivatives, and what its motions keep to."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.planner import BEST, ENVELOPE, poles_of
from policies.navigation import weaving
from policies.navigation.planner import fastest
from policies.navigation.problem import Body, Envelope, Problem
from policies.navigation.transcription import Motion, places, used
from sim.course.description import Gate, Pole, official
from sim.robots.description import default_robot

BODY = Body.of(default_robot().footprint)
GATE, POLES = Gate((1.0, -0.6), (1.0, 0.6)), (Pole(0.5, 0.0), Pole(1.0, -0.6))
SMALL = Problem(
    np.zeros(3), np.array([2.0, 0.5, 0.3]), BODY, (GATE,), POLES, end_velocity=np.array([0.5, 0.1]), knots=4
)


@pytest.fixture(scope="module")
def fast():
    """The official weave poles and the motion past them at the benchmark's limits."""
    return poles_of("official")


def test_the_official_poles_take_no_longer_than_an_independent_optimisers(fast):
    assert fast.seconds < 1.03 * BEST["official"]


def test_a_plan_keeps_its_accelerations(fast):
    """Velocities change at knots: over the time between the middles of two steps by no more than the limits."""
    pose, time = fast.found.pose, fast.found.time
    rate = np.diff(pose, axis=0) / np.diff(time)[:, None]
    acceleration = np.diff(rate, axis=0) / (time[2:] - time[:-2])[:, None] * 2
    assert np.linalg.norm(acceleration[:, :2], axis=1).max() < 1.2 * ENVELOPE.acceleration
    assert np.abs(acceleration[:, 2]).max() < 1.2 * ENVELOPE.yaw_acceleration
    assert fast.found.strain < 1.2


def test_a_plan_keeps_its_speeds_and_its_distance_from_the_poles(fast):
    assert fast.found.violation < weaving.ALLOWED
    pose, poles = fast.found.pose, np.array([(p.x, p.y) for p in fast.problem.poles])
    between = np.concatenate([pose + share * np.diff(pose, axis=0, append=pose[-1:]) for share in (0, 0.25, 0.5, 0.75)])
    room = fast.problem.body.distance(between, poles) - [p.radius for p in fast.problem.poles]
    assert room.min() > 0.01


def test_a_plan_is_the_same_again():
    guess = np.array([[0.0, 0, 0], [0.5, 0.5, 0], [1, 0.2, 0], [1.5, 0.3, 0], [2, 0.5, 0.3]])
    one, two = (fastest(SMALL, [guess, guess * [1, 0.5, 1]]) for _ in range(2))
    assert (one.pose == two.pose).all() and (one.time == two.time).all()


@pytest.mark.parametrize("free", [False, True])
def test_slopes_and_curvature_are_derivatives(free):
    problem = replace(SMALL, end_velocity=None) if free else SMALL
    rng = np.random.default_rng(0)
    pose = np.linspace(problem.start, problem.end, 9) + 0.05 * rng.standard_normal((9, 3))
    place, size = places(9, 2)
    weight = used(problem) * rng.random(used(problem).shape)
    unknowns = np.concatenate([pose[1:-1].ravel(), np.log([0.1, 0.13])])

    def motion(z: np.ndarray) -> Motion:
        return Motion(problem, np.concatenate([pose[:1], z[:-2].reshape(-1, 3), pose[-1:]]), z[-2:])

    def gradient(z: np.ndarray) -> np.ndarray:
        sums = (motion(z).slopes() * weight[:, :, None]).sum(1)
        return np.bincount(place.ravel(), sums.ravel(), size + 1)[:size]

    steps = 1e-6 * np.eye(size)
    sloped = [((motion(unknowns + d).rows - motion(unknowns - d).rows) * weight).sum() / 2e-6 for d in steps]
    np.testing.assert_allclose(gradient(unknowns), sloped, atol=1e-6)
    curved = np.array([(gradient(unknowns + d) - gradient(unknowns - d)) / 2e-6 for d in steps])
    pair = place[:, :, None] * (size + 1) + place[:, None, :]
    flat = np.bincount(pair.ravel(), motion(unknowns).curvature(weight).ravel(), (size + 1) ** 2)
    np.testing.assert_allclose(flat.reshape(size + 1, -1)[:size, :size], curved, atol=1e-4)


def test_first_guesses_go_sideways_nose_first_and_half_turned(fast):
    poles = official().obstacles[1].poles
    line = np.arctan2(poles[-1].y - poles[0].y, poles[-1].x - poles[0].x)
    found = weaving.guesses(fast.problem, poles)
    gates = len(fast.problem.gates)
    turned = [np.degrees(np.mean(guess[7 : 2 * gates : 2, 2]) - line) for guess in found]
    for wanted in (-90, 90, 0):
        assert min(abs(t - wanted) for t in turned) < 20


def test_a_velocity_is_cut_to_the_envelope():
    cut = weaving.within(np.array([0.0, 1.9]), np.pi / 2, Envelope(forward=(-1.0, 1.8)))
    np.testing.assert_allclose(cut, [0.0, 1.8], atol=1e-12)


def test_poles_without_a_gap_for_the_body_have_no_plan():
    wall = tuple(Pole(1.0, y) for y in np.linspace(-0.6, 0.6, 9))
    assert weaving.weave((0.0, 0.0, 0.0), (GATE,), wall, (2.0, 0.0, 0.0), None, 0, BODY) == []
