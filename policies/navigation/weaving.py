"""Waypoints along the fastest motions that the planner finds: past the poles, round the turn to the jump.

Which way the body faces among the poles (sideways as the paper's robot, nose first, something between) is not decided
here: several first guesses are optimised and the fastest is taken. For the official course at a fast walker's limits
that is sideways to the right, turning on the way in and coming out already turned towards the A-frame.
"""

from collections.abc import Sequence

import numpy as np

from policies.navigation.planner import Trajectory, fastest
from policies.navigation.problem import Body, Envelope, Problem
from sim.course.description import Gate, Pole, Waypoint
from sim.planar import to_body, wrap

MARGIN = 0.06
"""m of free space between the body and poles. By hand, as is what follows: see
`policies.navigation.navigator.Tuning`."""
GAP = 0.04
"""m between two waypoints made from a trajectory, at least. By hand."""
FIT = 0.002
"""m that a gap between two poles leaves beside the body and the margins on both its sides, at least: margins become
smaller where the gap is narrow, the same on either side. By hand."""
ALLOWED = 0.04
"""Largest part of the margin (m) or of the speed limits (m/s, rad/s) that a plan may violate: less than `MARGIN`, so
that a plan never touches a pole."""
LEAST_SPEED = 0.25
"""m/s that a waypoint asks for at least: a path must not creep where the plan starts or turns on the spot. By hand."""
TOLERANCE = 0.12
"""m at which such a waypoint counts as reached. By hand."""
RUN_IN = 0.2
"""How much the time of sections before the clock starts counts: little, but they must not dawdle. By hand."""
KNOTS = 24
"""Of a turn in the open, which is one section."""

# First guesses; the optimiser moves them to the nearest good motion. By hand.
ROCK = 0.5
"""rad: swing of the heading from gap to gap in some of them."""
SLALOM = 0.6
"""rad: the same where the body goes nose first, which it must to get through the gaps."""
HALF_TURNED = 0.67
"""Share of sideways that the body is turned by in others."""
TURN_IN = 3
"""Gates at which the body has turned to its heading among the poles."""
OFF_POLE = 0.09
"""m between a pole and the body where a guess rounds it."""
OPEN_SHARE = 0.6
"""Of a gate's width, at most, that a guess keeps off the pole in a gate with one pole."""
INNER = 0.25
"""Share of a gate's width that a guess keeps from its ends in a gate without poles."""
AT_POLE = 0.01
"""m within which a gate's end counts as a pole."""


def weave(
    start: Sequence[float],
    gates: Sequence[Gate],
    poles: Sequence[Pole],
    end: Sequence[float],
    end_velocity: np.ndarray | None,
    run_in: int,
    body: Body,
    envelope: Envelope = Envelope(),
    start_velocity: np.ndarray | None = None,
    margin: float = MARGIN,
    others: Sequence[Pole] = (),
) -> list[Waypoint]:
    """From a pose (x, y, yaw) through `gates` to a pose; `run_in` sections come before the clock starts.

    `start_velocity` is at rest where None; velocities in m/s, in the world. `others` are poles that only stand near.

    Empty where no motion is found that keeps the body off the poles.
    """
    problem = Problem(
        np.array(start, float),
        np.array(end, float),
        body,
        tuple(gates),
        (*poles, *others),
        start_velocity=np.zeros(2) if start_velocity is None else within(start_velocity, start[2], envelope),
        end_velocity=None if end_velocity is None else within(end_velocity, end[2], envelope),
        section_weights=(RUN_IN,) * run_in,
        envelope=envelope,
        margin=margin,
        margins=fitting(poles, gates, body, margin),
    )
    best = fastest(problem, guesses(problem, poles))
    return waypoints(best) if best.violation < ALLOWED else []


def fitting(poles: Sequence[Pole], gates: Sequence[Gate], body: Body, margin: float) -> tuple[float, ...]:
    """Every pole's margin (m): `margin`, or what its narrowest gate leaves a body that passes squarely."""
    places, found = np.array([(p.x, p.y) for p in poles]), [margin] * len(poles)
    for gate in gates:
        ends = [np.linalg.norm(places - end, axis=1) for end in (gate.left, gate.right)]
        if max(near.min() for near in ends) < AT_POLE:
            pair = [int(near.argmin()) for near in ends]
            gap = float(np.linalg.norm(places[pair[1]] - places[pair[0]])) - sum(poles[k].radius for k in pair)
            room = max((gap - 2 * body.half_width) / 2 - FIT, 0.0)
            for k in pair:
                found[k] = min(found[k], room)
    return tuple(found)


def turn(
    start: Sequence[float],
    velocity: np.ndarray,
    end: Sequence[float],
    end_velocity: np.ndarray,
    body: Body,
    envelope: Envelope = Envelope(),
) -> list[Waypoint]:
    """From a pose and velocity to another, in the open; the shorter way round is taken."""
    finish = np.array(end, float)
    finish[2] = start[2] + wrap(finish[2] - start[2])
    problem = Problem(
        np.array(start, float),
        finish,
        body,
        start_velocity=within(velocity, start[2], envelope),
        end_velocity=within(end_velocity, finish[2], envelope),
        envelope=envelope,
        knots=KNOTS,
    )
    middle = (problem.start + finish) / 2
    return waypoints(fastest(problem, [np.stack([problem.start, middle, finish])]))


def within(velocity: np.ndarray, yaw: float, envelope: Envelope) -> np.ndarray:
    """A velocity in the world (m/s) of a body with that heading, cut to what the envelope allows it."""
    ahead, aside = to_body(velocity[0], velocity[1], yaw)
    ahead, aside = np.clip(ahead, *envelope.forward), np.clip(aside, -envelope.sideways, envelope.sideways)
    return np.stack(to_body(ahead, aside, -yaw))


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
        speed = float(max(rate[k], LEAST_SPEED))
        points.append(Waypoint(float(last[0]), float(last[1]), speed, yaw=float(pose[k, 2]), tolerance=TOLERANCE))
    return points


def guesses(problem: Problem, line_of: Sequence[Pole]) -> list[np.ndarray]:
    """First guesses: sideways facing either side of the line of poles, plain and rocking, and half turned; nose first
    in a slalom that begins on either side."""
    poles = np.array([(p.x, p.y) for p in line_of])
    line = poles[-1] - poles[0]
    line = float(np.arctan2(line[1], line[0]))
    found = []
    for side in (-np.pi / 2, np.pi / 2):
        for turned, rock in ((side, 0.0), (side, ROCK), (side, -ROCK), (side * HALF_TURNED, 0.0)):
            found.append(_guess(problem, line, turned, rock))
    return found + [_guess(problem, line, 0.0, rock) for rock in (SLALOM, -SLALOM)]


def _guess(problem: Problem, line: float, turned: float, rock: float) -> np.ndarray:
    """Poses `[2 * sections + 1, 3]`: crossings of the gates with a heading of `line + turned` +- `rock`, and points
    between them that clear the pole that two neighbouring gates share."""
    poles = np.array([(p.x, p.y) for p in problem.poles])
    places, yaws, swing = [problem.start[:2]], [problem.start[2]], 1
    for gate in problem.gates:
        inner = [np.linalg.norm(poles - end, axis=1).min() < AT_POLE for end in (gate.left, gate.right)]
        if all(inner):
            places.append(gate.center)
            yaws.append(line + turned + swing * rock)
            swing = -swing
        else:
            places.append(_open_crossing(problem.body, gate, inner, places[-1]))
            yaws.append(line + turned * min(1.0, len(yaws) / TURN_IN))
    end = line + turned + wrap(problem.end[2] - line - turned)
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
                if np.linalg.norm(poles - pole, axis=1).min() < AT_POLE:
                    middle = _clear_of(problem.body, np.array(pole), middle, yaw)
        rows += [[*middle, yaw], [*places[k], yaws[k]]]
    return np.array(rows)


def _open_crossing(body: Body, gate: Gate, inner: Sequence[bool], before: np.ndarray) -> np.ndarray:
    """Crossing of a gate with at most one pole: half a body off the pole, or the gate's nearest inner part."""
    left, right = np.array(gate.left), np.array(gate.right)
    length = float(np.linalg.norm(right - left))
    if any(inner):
        pole, outer = (left, right) if inner[0] else (right, left)
        return pole + min(body.front + OFF_POLE, OPEN_SHARE * length) * (outer - pole) / length
    t = float((before - left) @ (right - left)) / length**2
    return left + np.clip(t, INNER, 1 - INNER) * (right - left)


def _clear_of(body: Body, pole: np.ndarray, middle: np.ndarray, yaw: float) -> np.ndarray:
    """`middle` moved away from the pole until the body with that heading is clear of it."""
    away = middle - pole
    away = away / max(float(np.linalg.norm(away)), 1e-9)
    forward, left = to_body(-away[0], -away[1], yaw)  # from the body to the pole
    reach = body.front if forward > 0 else body.rear
    ray = min(reach / max(abs(forward), 1e-6), body.half_width / max(abs(left), 1e-6))
    return pole + (ray + OFF_POLE) * away
