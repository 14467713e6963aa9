"""A route is driven in the head first: how far a robot is beside it, the same in every run, is made up for beforehand.

A walker answers late and blurs what it is asked, so a navigator that steers by the error alone is off by the same
decimetre at the same place in every run. Here a `ModelledWalker` follows the route, and its errors are turned into
feed-forward a little earlier on the path, again and again (iterative learning control), until the model has none.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from policies.navigation.navigator import Navigator, course_navigator
from policies.navigation.path import SPACING, MotionLimits
from policies.navigation.response import ModelledWalker, Response
from sim.course.description import Course, Waypoint
from sim.planar import to_world, wrap

ROUNDS = 6
"""Rehearsals: on the official course they leave 0.7 of 6 cm and 0.01 of 0.13 rad (root mean squares)."""
LEAD, TURN_LEAD = 0.24, 0.08
"""s on the path between a command and the error that it makes up for: the lags of Barkour v0's walker."""
GAIN, TURN_GAIN = 2.0, 2.0
"""1/s: velocity per m, turning per rad, and round. By hand, as are the next ones: see `navigator.Tuning`."""
SMOOTH = 0.08
"""s: feed-forward is a mean over so much of the way on both sides."""
MOST, MOST_TURN = 0.7, 1.2
"""m/s and rad/s that may be asked for on top."""
TURNING = 0.2
"""Squared planar share of a path below which it is mostly a turn, and says little of speed."""
HANDOVER = 0.3
"""s before another skill takes over from which nothing is added: it would act on that one, and a jumper that takes over
a robot in sideways motion runs at the board askew."""
LONGEST = 60.0
"""s after which a rehearsal ends, wherever it is."""
KEPT = 32
"""Routes whose feed-forward is remembered."""


def rehearsed(
    course: Course, route: Sequence[Waypoint], limits: MotionLimits, response: Response, made_up: float = 0.0
) -> Navigator:
    """A navigator for a course (`navigator.course_navigator`) that knows how its robot answers; see `rehearse`."""
    return _rehearsed(course, tuple(route), limits, response, made_up).copy()


@lru_cache(maxsize=KEPT)
def _rehearsed(
    course: Course, route: tuple[Waypoint, ...], limits: MotionLimits, response: Response, made_up: float
) -> Navigator:
    navigator = course_navigator(course, route, limits)
    rehearse(navigator, response, made_up=made_up)
    return navigator


def rehearse(navigator: Navigator, response: Response, rounds: int = ROUNDS, made_up: float = 0.0) -> None:
    """Fills `navigator.ahead_of_errors` where the walker drives; the navigator is reset.

    `made_up` is the share of the speed lacking along the way (0 to 1) that is asked for on top after each round: a way
    that keeps speeding up and braking is otherwise gone along as much more slowly as the walker blurs it.
    """
    path, time, learned = navigator.path, navigator.path.time, navigator.ahead_of_errors
    index = np.minimum(np.searchsorted(path.marks, path.s + 1e-9), len(navigator.route) - 1)
    walks = np.array([w.skill == "walk" for w in navigator.route])[index]
    later, later_turned, handed = (
        np.searchsorted(time, time + lead).clip(max=len(time) - 1) for lead in (LEAD, TURN_LEAD, HANDOVER)
    )
    adds = (walks & walks[handed])[:, None]
    most = np.array([MOST, MOST, MOST_TURN])
    for _ in range(rounds):
        error = errors(navigator, response)
        missing = -np.column_stack([GAIN * error[later, :2], TURN_GAIN * error[later_turned, 2]])
        missing[:, :2] += made_up * error[later, 3:] * path.tangent[later]
        learned[:] = np.clip(learned + _smoothed(np.where(adds, missing, 0.0), time), -most, most) * walks[:, None]
    learned[:] = learned.round(4)  # as `route_cache.settled`: the last digits depend on the machine
    navigator.reset()


def errors(navigator: Navigator, response: Response) -> np.ndarray:
    """How far a modelled walker is from the path along it, `[n, 4]`: m in the world across the way, rad, and how much
    slower it is than planned, m/s (0 where the path hardly moves)."""
    path, walker, period = navigator.path, ModelledWalker(response), response.period
    navigator.reset()
    pose = np.array([*path.xy[0], path.yaw[0]])
    rows: list[tuple[float, float, float, float, float]] = []
    for _ in range(round(LONGEST / period)):
        command = navigator.step(pose, period)
        if command.state == "holding":
            break
        i = min(int(round(navigator.s / SPACING)), len(path.s) - 1)
        off, tangent = pose[:2] - path.xy[i], path.tangent[i]
        size = float(tangent @ tangent)
        if size > 1e-4:
            off = off - (off @ tangent) / size * tangent
        forward, left, around = walker.step(command.velocity).tolist()
        x, y = to_world(forward, left, pose[2] + around * period / 2)
        slower = path.speed[i] - float(tangent @ (x, y)) / size if size > TURNING else 0.0
        rows.append((navigator.s, off[0], off[1], float(wrap(pose[2] - path.yaw[i])), slower))
        pose = pose + period * np.array([x, y, around])
    table = np.array(rows)
    s, first = np.unique(table[:, 0], return_index=True)
    return np.stack([np.interp(path.s, s, table[first, k]) for k in (1, 2, 3, 4)], 1)


def _smoothed(values: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Means over `SMOOTH` of the way before and behind, `[n, k]`."""
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, 0)])
    low = np.searchsorted(time, time - SMOOTH)
    high = np.searchsorted(time, time + SMOOTH, side="right")
    return (total[high] - total[low]) / (high - low)[:, None]
