"""Waypoints along the fastest motions that the planner finds: past the poles, round the turn to the jump.

Which way the body faces among the poles (sideways as the paper's robot, nose first, something between) is not decided
here: several first guesses are optimised and the fastest is taken. For the official course that is sideways, rocking
with the gaps and coming out already turned towards the A-frame.
"""

from collections.abc import Sequence

import numpy as np

from policies.navigation.planner import Body, Envelope, Problem, Trajectory, fastest
from sim.course.description import Gate, Pole, Waypoint

BODY = Body()
MARGIN = 0.06
GAP = 0.04
"""Least distance between two waypoints made from a trajectory, m."""
ALLOWED = 0.04
"""Largest part of the margin (m) or of the speed limits (m/s, rad/s) that a plan may violate."""
ROCK = 0.5
"""Swing of the heading from gap to gap in some first guesses, rad."""


def weave(
    start: Sequence[float],
    gates: Sequence[Gate],
    poles: Sequence[Pole],
    end: Sequence[float],
    end_velocity: np.ndarray | None,
    run_in: int,
    envelope: Envelope = Envelope(),
    start_velocity: np.ndarray | None = None,
    margin: float = MARGIN,
) -> list[Waypoint]:
    """From a pose (x, y, yaw) through `gates` to a pose; `run_in` sections come before the clock starts.

    `start_velocity` is at rest where None; velocities in m/s, in the world.

    Empty where no motion is found that keeps the body off the poles.
    """
    problem = Problem(
        np.array(start, float),
        np.array(end, float),
        tuple(gates),
        tuple(poles),
        start_velocity=np.zeros(2) if start_velocity is None else start_velocity,
        end_velocity=end_velocity,
        section_weights=(0.2,) * run_in,
        envelope=envelope,
        body=BODY,
        margin=margin,
    )
    best = fastest(problem, guesses(problem))
    return waypoints(best) if best.violation < ALLOWED else []


def turn(
    start: Sequence[float],
    velocity: np.ndarray,
    end: Sequence[float],
    end_velocity: np.ndarray,
    envelope: Envelope = Envelope(),
) -> list[Waypoint]:
    """From a pose and velocity to another, in the open; the shorter way round is taken."""
    finish = np.array(end, float)
    finish[2] = start[2] + (finish[2] - start[2] + np.pi) % (2 * np.pi) - np.pi
    problem = Problem(
        np.array(start, float), finish, start_velocity=velocity, end_velocity=end_velocity, envelope=envelope, knots=24
    )
    middle = (problem.start + finish) / 2
    return waypoints(fastest(problem, [np.stack([problem.start, middle, finish])]))


def waypoints(trajectory: Trajectory) -> list[Waypoint]:
    """The trajectory's poses as waypoints, at least `GAP` apart, each with the speed that was planned there."""
    pose, time = trajectory.pose, trajectory.time
    rate = np.linalg.norm(np.gradient(pose[:, :2], time, axis=0), axis=1)
    points, last = [], pose[0, :2]
    for k in range(1, len(pose)):
        ahead = np.linalg.norm(pose[-1, :2] - pose[k, :2])
        if k < len(pose) - 1 and (np.linalg.norm(pose[k, :2] - last) < GAP or ahead < GAP):
            continue
        last = pose[k, :2]
        speed = float(max(rate[k], 0.25))
        points.append(Waypoint(float(last[0]), float(last[1]), speed, yaw=float(pose[k, 2]), tolerance=0.12))
    return points


def guesses(problem: Problem) -> list[np.ndarray]:
    """First guesses: sideways facing either side of the line of poles, plain and rocking, and half turned."""
    poles = np.array([(p.x, p.y) for p in problem.poles])
    line = poles[-1] - poles[0]
    line = float(np.arctan2(line[1], line[0]))
    found = []
    for side in (-np.pi / 2, np.pi / 2):
        for turned, rock in ((side, 0.0), (side, ROCK), (side, -ROCK), (side * 0.67, 0.0)):
            found.append(_guess(problem, line, turned, rock))
    return found


def _guess(problem: Problem, line: float, turned: float, rock: float) -> np.ndarray:
    """Poses `[2 * sections + 1, 3]`: crossings of the gates with a heading of `line + turned` +- `rock`, and points
    between them that clear the pole that two neighbouring gates share."""
    poles = np.array([(p.x, p.y) for p in problem.poles])
    places, yaws, swing = [problem.start[:2]], [problem.start[2]], 1
    for gate in problem.gates:
        inner = [np.linalg.norm(poles - end, axis=1).min() < 0.01 for end in (gate.left, gate.right)]
        if all(inner):
            places.append(gate.center)
            yaws.append(line + turned + swing * rock)
            swing = -swing
        else:
            places.append(_open_crossing(problem.body, gate, inner, places[-1]))
            yaws.append(line + turned * min(1.0, len(yaws) / 3))
    end = line + turned + (problem.end[2] - line - turned + np.pi) % (2 * np.pi) - np.pi
    places.append(problem.end[:2])
    yaws.append(end)
    rows = [[*places[0], yaws[0]]]
    for k in range(1, len(places)):
        middle, yaw = (places[k - 1] + places[k]) / 2, (yaws[k - 1] + yaws[k]) / 2
        if 2 <= k <= len(problem.gates):
            shared = {problem.gates[k - 2].left, problem.gates[k - 2].right} & {
                problem.gates[k - 1].left,
                problem.gates[k - 1].right,
            }
            for pole in shared:
                if np.linalg.norm(poles - pole, axis=1).min() < 0.01:
                    middle = _clear_of(problem.body, np.array(pole), middle, yaw)
        rows += [[*middle, yaw], [*places[k], yaws[k]]]
    return np.array(rows)


def _open_crossing(body: Body, gate: Gate, inner: Sequence[bool], before: np.ndarray) -> np.ndarray:
    """Crossing of a gate with at most one pole: half a body off the pole, or the gate's nearest inner part."""
    left, right = np.array(gate.left), np.array(gate.right)
    length = float(np.linalg.norm(right - left))
    if any(inner):
        pole, outer = (left, right) if inner[0] else (right, left)
        return pole + min(body.front + 0.09, 0.6 * length) * (outer - pole) / length
    t = float((before - left) @ (right - left)) / length**2
    return left + np.clip(t, 0.25, 0.75) * (right - left)


def _clear_of(body: Body, pole: np.ndarray, middle: np.ndarray, yaw: float) -> np.ndarray:
    """`middle` moved away from the pole until the body with that heading is clear of it."""
    away = middle - pole
    away = away / max(float(np.linalg.norm(away)), 1e-9)
    c, s = np.cos(yaw), np.sin(yaw)
    forward, left = -(c * away[0] + s * away[1]), -(c * away[1] - s * away[0])
    reach = body.front if forward > 0 else body.rear
    ray = min(reach / max(abs(forward), 1e-6), body.half_width / max(abs(left), 1e-6))
    return pole + (ray + 0.09) * away
