"""Planning the ways that a walker learns to follow: over random courses and shipped ones, at paces drawn for each."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from policies.navigation.paces import Paces
from policies.navigation.path import MotionLimits, lay_path
from policies.navigation.route import plan
from sim.course.files import by_name
from sim.errors import InputError
from sim.robots.description import Robot
from sim.tasks.ways import Ways

KNOWN = ("official", "reversed")
"""Shipped courses that stand in for every eighth random one, each at other paces."""
FIRST = 50_000
"""Number of the first random course: far from those that are evaluated."""
ACCELERATION, SIDEWAYS, YAW, AHEAD = (3.0, 5.0), (1.1, 1.4), (2.2, 2.8), (1.8, 2.2)
"""m/s^2, m/s, rad/s and m/s that a plan may use, drawn for each."""
LATERAL, BRAKING = 1.3, 1.1
"""Of that acceleration, what a path's bends and its speeding up and braking may take."""


def planned_ways(
    robot: Robot, count: int, seed: int = 0, say: Callable[[str], None] = print, haste: float = 1.0
) -> Ways:
    """`count` ways and their mirror images, as this robot's navigator would lay them.

    What the plans may use is `haste` times `ACCELERATION`, `SIDEWAYS`, `YAW` and `AHEAD`.

    Raises:
      InputError: hardly a course has a route for this robot.
    """
    rng, found, poles, number = np.random.default_rng([0x3A75, seed]), [], [], 0
    while len(found) < count:
        if number > 2 * count + 8:
            raise InputError(f"only {len(found)} of {number} courses have a route for {robot.name}")
        low, high = (np.array([r[i] for r in (ACCELERATION, SIDEWAYS, YAW, AHEAD)]) for i in (0, 1))
        acceleration, sideways, yaw, ahead = (haste * (low + rng.random(4) * (high - low))).tolist()
        name = KNOWN[number // 8 % 2] if number % 8 < 2 else f"generated:{FIRST + 1000 * seed + number}"
        number += 1
        paces = Paces()
        envelopes = {
            which: replace(
                getattr(paces, which), forward=(-1.4, ahead), sideways=sideways, yaw=yaw, acceleration=acceleration
            )
            for which in ("walker", "turn", "late")
        }
        limits = replace(
            MotionLimits(), lateral_acceleration=LATERAL * acceleration, braking=BRAKING * acceleration,
            sideways=(-sideways, sideways), yaw=(-yaw, yaw),
        )  # fmt: skip
        course = by_name(name)
        try:
            route = plan(course, robot.footprint, ("walk", "climb", "jump"), replace(paces, **envelopes))
        except InputError:
            continue
        path = lay_path(course.start, route, limits)
        time = np.arange(0.0, path.time[-1], robot.control_period)
        poles.append(np.array([(pole.x, pole.y) for pole in course.poles]).reshape(-1, 2))
        found.append(np.column_stack([np.interp(time, path.time, v) for v in (*path.xy.T, path.yaw)]))
        if len(found) % 16 == 0:
            say(f"planning ways to walk: {len(found)} of {count}")
    return Ways.of(found, robot.control_period, poles)
