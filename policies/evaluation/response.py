"""A walker's response to its commands, identified in evaluation physics for a robot and a policy.

Robots of drawn physics are asked for steps of random size at random times in all three components at once; the answer
is fitted by least squares as a sum over the last commands, with no form given but that it is smooth.
"""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from policies.bundle.reader import Bundle
from policies.evaluation.walking import Walker
from policies.navigation.response import Response
from sim.course.scene import build
from sim.course.terrain import Terrain
from sim.envs.worlds import SimulatedRobots, flat, world_seeds
from sim.errors import InputError
from sim.observation import COMMANDS
from sim.planar import to_body

SHARE = (0.3, 0.85)
"""Of the largest commands that a walker was trained on, back and ahead, that are asked for: what a course asks.
Sideways and around it is the larger one."""
HOLD = (0.2, 0.9)
"""s between two steps of a component."""
RATES = (5.0, 5.0, 12.0)
"""m/s^2 and rad/s^2 with which a command changes, as a navigator's do."""
SETTLE = 1.2
"""s at the start that are left out."""
MEMORY = 0.8
"""s of commands that an answer may come from."""
SMOOTH = 30.0
"""Weight of the differences between neighbours in what is fitted, beside the squares of some 10,000 readings."""
HELD_OUT = 0.25
"""Share of the robots that nothing is fitted to."""


def identify(bundle: Bundle, robots: int = 16, seconds: float = 24.0, seed: int = 0) -> tuple[Response, dict[str, Any]]:
    """The response, and what was measured: `robots`, `fallen`, and for each component the share of the velocity's
    variance, in means over 0.4 s, that it explains in robots it was not fitted to (`explained_forward`, ...).

    Raises:
      InputError: fewer than 4 robots, or too few that stay on their feet.
    """
    if robots < 4 or seconds < 4 * SETTLE:
        raise InputError(f"a response needs at least 4 robots and {4 * SETTLE} s, got {robots} and {seconds}")
    commands, velocity, stood = _motion(bundle, robots, seconds, seed)
    if stood.sum() < 4:
        raise InputError(f"only {stood.sum()} of {robots} robots stayed on their feet")
    commands, velocity = commands[stood], velocity[stood]
    fitted = len(commands) - max(round(HELD_OUT * len(commands)), 1)
    dt = bundle.robot.control_period
    taps, first = round(MEMORY / dt), round(SETTLE / dt)
    rows = sliding_window_view(commands, taps, axis=1)[:, :, :, ::-1]  # newest first; window k ends at k + taps - 1
    start = first - taps + 1
    tables, explained = [], {}
    rough = SMOOTH * np.diff(np.eye(taps), axis=0)
    for k, name in enumerate(COMMANDS):
        x, y = rows[:, start:, k], velocity[:, first:, k]
        flat_x, flat_y = x[:fitted].reshape(-1, taps), y[:fitted].ravel()
        impulse = np.linalg.solve(flat_x.T @ flat_x + rough.T @ rough + 1e-3 * np.eye(taps), flat_x.T @ flat_y)
        tables.append(tuple(np.cumsum(impulse).round(4).tolist()))
        mean = lambda values: sliding_window_view(values, round(0.4 / dt), axis=1).mean(-1)  # noqa: E731
        off, all_of_it = mean(x[fitted:] @ impulse - y[fitted:]), mean(y[fitted:])
        explained[f"explained_{name}"] = float(1 - (off**2).mean() / all_of_it.var())
    return Response(dt, *tables), {"robots": robots, "fallen": int(robots - stood.sum()), **explained}


def _motion(bundle: Bundle, count: int, seconds: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Commands and velocities over the ground in the heading frame `[robots, T, 3]`, and who stayed on its feet."""
    dt, ranges = bundle.robot.control_period, bundle.metadata.command_ranges
    top = np.array([ranges[name][1] for name in COMMANDS])
    high = SHARE[1] * top
    low = np.maximum([-SHARE[0] * top[0], -high[1], -high[2]], [ranges[n][0] for n in COMMANDS])
    worlds = SimulatedRobots(bundle.robot, build(bundle.robot, Terrain()), world_seeds(seed, count), randomize=True)
    worlds.place(np.zeros(count), np.zeros(count), np.zeros(count), flat)
    walker, rng = Walker(bundle, worlds), np.random.default_rng([0x2E59, seed])
    aim, asked, due = np.zeros((count, 3)), np.zeros((count, 3)), np.zeros((count, 3))
    commands, poses = [], [worlds.pose]
    for step in range(round(seconds / dt)):
        new = due <= step * dt
        aim = np.where(new, rng.uniform(low, high, (count, 3)), aim)
        due = np.where(new, step * dt + rng.uniform(*HOLD, (count, 3)), due)
        asked = asked + np.clip(aim - asked, -np.array(RATES) * dt, np.array(RATES) * dt)
        walker.step(asked.astype(np.float32))
        commands.append(asked)
        poses.append(worlds.pose)
    path = np.array(poses).swapaxes(0, 1)
    yaw = np.unwrap(path[:, :, 2], axis=1)
    moved, turned = np.diff(path[:, :, :2], axis=1) / dt, np.diff(yaw, axis=1) / dt
    ahead, left = to_body(moved[..., 0], moved[..., 1], (yaw[:, 1:] + yaw[:, :-1]) / 2)
    return np.array(commands).swapaxes(0, 1), np.stack([ahead, left, turned], 2), ~walker.fallen
