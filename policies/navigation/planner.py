"""The fastest motion of an omnidirectional walker through gates and past poles.

Direct transcription: poses at a number of knots per section (a section ends at a gate), one time step per section.
Speed limits in the body's frame, the clearance of the body's rectangle to every pole and the gates are penalties with
steep weights, accelerations one with a gentle weight; the time is what is left to minimise. Levenberg-Marquardt; every
residual depends on three neighbouring knots, so nine perturbed evaluations give the whole Jacobian, which is banded.
numpy only, about a second for the official weave poles.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from threadpoolctl import threadpool_limits

from sim.course.description import Gate, Pole
from sim.planar import to_body
from sim.robots.footprint import Footprint


@dataclass(frozen=True)
class Body:
    """The robot seen from above: a rectangle around its base, m."""

    front: float
    rear: float
    half_width: float

    @classmethod
    def of(cls, footprint: Footprint) -> "Body":
        """A standing robot's."""
        return cls(footprint.front, footprint.rear, footprint.half_width)

    def distance(self, pose: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Signed distance `[..., P]` from the rectangle at `pose [..., 3]` to `points [P, 2]`; negative inside."""
        dx, dy = points[:, 0] - pose[..., 0, None], points[:, 1] - pose[..., 1, None]
        x, y = to_body(dx, dy, pose[..., 2, None])
        ox, oy = np.maximum(x - self.front, -self.rear - x), np.abs(y) - self.half_width
        return np.hypot(np.maximum(ox, 0), np.maximum(oy, 0)) + np.minimum(np.maximum(ox, oy), 0)


@dataclass(frozen=True)
class Weights:
    """How much the residuals weigh against each other; squares of them are added.

    Set by hand (`policies.navigation.navigator.Tuning` says what that means): on the official weave poles violations
    stay below `policies.navigation.weaving.ALLOWED`.
    """

    speed: float = 10.0
    """Per m/s or rad/s over a limit."""
    acceleration: float = 0.3
    """Per m/s^2 or rad/s^2 over a limit: gentle, the command's own limits hold in any case."""
    clear: float = 60.0
    """Per m of margin that a pole lacks."""
    gate: float = 60.0
    """Per m that a crossing is off its gate's line or inside its margins."""
    fixed: float = 200.0
    """Per m or rad that the first and last pose are off."""
    time: float = 0.4
    """Per s: what is left to minimise."""
    smooth: float = 0.04
    """Per m/s^2 everywhere, so that what costs no time is smooth."""
    smooth_turn: float = 0.5
    """The same per rad/s^2, as a share of `smooth`."""


@dataclass(frozen=True)
class Solver:
    """How a problem is solved: Levenberg-Marquardt with growing stiffness. By hand: it converges on the shipped and on
    the generated courses (`tests/policies/navigation`)."""

    stiffness: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Factors on the penalties, one solution after the other: a guess that cuts corners slides around them."""
    iterations: int = 40
    """At most, per stiffness."""
    rough_iterations: int = 12
    """For the first look at a guess."""
    finalists: int = 3
    """Guesses that are solved to the end."""
    pace: float = 0.6
    """m/s at which a guess is timed."""
    least_time: float = 0.3
    """s that a section of a guess takes at least."""
    damping: float = 1.0
    """First damping; what follows is found out."""
    least_damping: float = 1e-4
    worse: float = 4.0
    """Factor on the damping after a step that did not help."""
    better: float = 5.0
    """Divisor after one that did."""
    attempts: int = 8
    """Dampings tried for one step."""
    largest_move: float = 0.2
    """m or rad by which a knot moves in one step."""
    largest_stretch: float = 0.3
    """By which a time step's logarithm changes in one step."""
    gain: float = 3e-4
    """Share of the cost that a step must save for another one to be tried."""
    difference: float = 1e-6
    """Of the finite differences, m, rad or log s: about the root of what a float resolves at 1."""


WEIGHTS, SOLVER = Weights(), Solver()


@dataclass(frozen=True)
class Envelope:
    """Speeds (m/s, rad/s, body frame) and accelerations (m/s^2, rad/s^2) that a plan may use.

    The defaults are a careful walker's, for a problem that is solved on its own; a route brings those of its `Paces`.
    """

    forward: tuple[float, float] = (-1.0, 1.4)
    sideways: float = 0.75
    yaw: float = 1.3
    acceleration: float = 2.2
    yaw_acceleration: float = 5.0


@dataclass(frozen=True, eq=False)
class Problem:
    """From a pose through gates to a pose. Poses are (x, y, yaw); velocities in the world, m/s."""

    start: np.ndarray
    end: np.ndarray
    body: Body
    gates: tuple[Gate, ...] = ()
    poles: tuple[Pole, ...] = ()
    start_velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    end_velocity: np.ndarray | None = None
    """None leaves it free."""
    section_weights: tuple[float, ...] = ()
    """How much the time of each section counts (one more than gates); 1 where not given."""
    envelope: Envelope = Envelope()
    margin: float = 0.05
    """Free space between the body and a pole, m."""
    gate_margin: float = 0.1
    """Distance of a crossing from a gate's ends, m. By hand."""
    gate_share: float = 0.4
    """The same as a share of the gate's width, at most: narrow gates keep a part to cross. By hand."""
    knots: int = 12
    """Per section. By hand."""
    stiffness: float = 1.0
    """Factor on the penalties."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A solved problem: poses `[K, 3]` at times `[K]` (s), and what went wrong."""

    pose: np.ndarray
    time: np.ndarray
    violation: float
    """Largest penetration of a margin (m) or overspeed (m/s, rad/s)."""
    cost: float
    """Weighted time plus penalties; the smaller the better."""


@threadpool_limits.wrap(limits=1, user_api="blas")  # the matrices are small: threads would only wait for each other
def solve(
    problem: Problem,
    guess: np.ndarray,
    iterations: int = SOLVER.iterations,
    scales: Sequence[float] = SOLVER.stiffness,
) -> Trajectory:
    """The locally fastest motion near `guess`: poses `[sections + 1, 3]` at the start, every gate and the end, or
    `[2 * sections + 1, 3]` with one between each two of those.

    Runs once per scale with steeper and steeper penalties, so that a guess that cuts corners can slide around them.
    """
    sections = len(problem.gates) + 1
    index = np.arange(sections * problem.knots + 1) / (sections * problem.knots) * (len(guess) - 1)
    pose = np.stack([np.interp(index, np.arange(len(guess)), guess[:, k]) for k in range(3)], 1)
    problem = replace(problem, end=np.array([*problem.end[:2], guess[-1, 2]]))  # whole turns are the guess's
    pose[0], pose[-1] = problem.start, problem.end
    moves = np.diff(pose, axis=0).reshape(sections, problem.knots, 3)
    length = np.linalg.norm(moves[:, :, :2], axis=2).sum(1) / SOLVER.pace + np.abs(moves[:, :, 2]).sum(1)
    log_step = np.log(np.maximum(length, SOLVER.least_time) / problem.knots)
    for scale in scales:
        result, log_step = _minimise(replace(problem, stiffness=scale), pose, log_step, iterations)
        pose = result.pose
    return result


def _minimise(
    problem: Problem, pose: np.ndarray, log_step: np.ndarray, iterations: int
) -> tuple[Trajectory, np.ndarray]:
    """Levenberg-Marquardt from poses `[K, 3]` and log time steps `[sections]`."""
    p, n = problem, problem.knots
    damping, residual = SOLVER.damping, _residuals(p, pose, log_step)
    cost = _cost(residual)
    for _ in range(iterations):
        hessian, gradient = _normal_equations(p, pose, log_step, residual)
        for _ in range(SOLVER.attempts):
            scaled = hessian + damping * np.eye(len(hessian))
            move = -np.linalg.solve(scaled, gradient)
            most, stretch = SOLVER.largest_move, SOLVER.largest_stretch
            step = np.clip(move[: 3 * len(pose)].reshape(-1, 3), -most, most)
            new_pose, new_step = pose + step, log_step + np.clip(move[3 * len(pose) :], -stretch, stretch)
            new = _residuals(p, new_pose, new_step)
            new_cost = _cost(new)
            if new_cost < cost:
                break
            damping *= SOLVER.worse
        else:
            break
        gain, cost = cost - new_cost, new_cost
        pose, log_step, residual = new_pose, new_step, new
        damping = max(damping / SOLVER.better, SOLVER.least_damping)
        if gain < SOLVER.gain * cost:
            break
    time = np.concatenate([[0.0], np.cumsum(np.repeat(np.exp(log_step), n))])
    bad = np.abs(residual[0][:, : 3 + len(p.poles)]) / np.array([*[WEIGHTS.speed] * 3, *[WEIGHTS.clear] * len(p.poles)])
    return Trajectory(pose, time, float(bad.max()) / p.stiffness, cost), log_step


def _cost(residual: tuple[np.ndarray, np.ndarray]) -> float:
    return float((residual[0] ** 2).sum() + (residual[1] ** 2).sum())


def _residuals(p: Problem, pose: np.ndarray, log_step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Residuals of every knot `[K, m]`, each depending on that knot and its two neighbours, and of the times `[S]`."""
    n, e = p.knots, p.envelope
    h = np.repeat(np.exp(log_step), n)[:, None]
    rate = np.diff(pose, axis=0) / h
    middle = (pose[1:, 2] + pose[:-1, 2]) / 2
    body = np.stack([*to_body(rate[:, 0], rate[:, 1], middle), rate[:, 2]], 1)
    low = np.array([e.forward[0], -e.sideways, -e.yaw])
    high = np.array([e.forward[1], e.sideways, e.yaw])
    speed = np.zeros((len(pose), 3))
    speed[:-1] = WEIGHTS.speed * (np.maximum(body - high, 0) + np.minimum(body - low, 0))
    first = np.array([*p.start_velocity, 0.0])
    last = rate[-1] if p.end_velocity is None else np.array([*p.end_velocity, 0.0])
    padded = np.concatenate([[first], rate, [last]])
    steps = np.concatenate([h[:1], (h[1:] + h[:-1]) / 2, h[-1:]])
    acceleration = np.diff(padded, axis=0) / steps
    planar = np.sqrt((acceleration[:, :2] ** 2).sum(1) + 1e-9)[:, None]
    turning = np.abs(acceleration[:, 2:])
    hinge = WEIGHTS.acceleration * np.concatenate(
        [np.maximum(planar - e.acceleration, 0), np.maximum(turning - e.yaw_acceleration, 0)], 1
    )
    blocks = [p.stiffness * speed]
    if p.poles:
        room = p.body.distance(pose, np.array([(q.x, q.y) for q in p.poles])) - [q.radius for q in p.poles]
        blocks.append(p.stiffness * WEIGHTS.clear * np.maximum(p.margin - room, 0))
    fixed = np.zeros((len(pose), 3))
    fixed[0], fixed[-1] = WEIGHTS.fixed * (pose[0] - p.start), WEIGHTS.fixed * (pose[-1] - p.end)
    smooth = WEIGHTS.smooth * acceleration * [1, 1, WEIGHTS.smooth_turn]
    blocks += [p.stiffness * hinge, smooth, _gates(p, pose), fixed]
    weights = np.ones(len(log_step))
    weights[: len(p.section_weights)] = p.section_weights
    return np.concatenate(blocks, 1), np.array([WEIGHTS.time * float((weights * n * np.exp(log_step)).sum())])


def _gates(p: Problem, pose: np.ndarray) -> np.ndarray:
    """Distance of the gate knots from their gate's line and from its allowed part, `[K, 2]`."""
    out = np.zeros((len(pose), 2))
    for i, gate in enumerate(p.gates):
        k = (i + 1) * p.knots
        left, right = np.array(gate.left), np.array(gate.right)
        length = float(np.linalg.norm(right - left))
        along = (right - left) / length
        offset = pose[k, :2] - left
        margin = min(p.gate_margin, p.gate_share * length)
        t = offset @ along
        out[k] = offset[0] * along[1] - offset[1] * along[0], max(t - (length - margin), 0) + min(t - margin, 0)
    return WEIGHTS.gate * out


def _normal_equations(
    p: Problem, pose: np.ndarray, log_step: np.ndarray, residual: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """J^T J and J^T r over all poses and log time steps."""
    eps = SOLVER.difference
    knots, width = residual[0].shape
    rows, sections = np.arange(knots), len(log_step)
    local = np.zeros((knots, width, 3, 3))  # by the neighbour before, the knot itself, the neighbour after; x, y, yaw
    for colour in range(3):
        slot = (colour - rows + 1) % 3  # which of the three has this colour
        inside = (rows + slot - 1 >= 0) & (rows + slot - 1 < knots)
        for axis in range(3):
            moved = pose.copy()
            moved[colour::3, axis] += eps
            change = (_residuals(p, moved, log_step)[0] - residual[0]) / eps
            local[rows[inside], :, slot[inside], axis] = change[inside]
    steps = np.zeros((knots, width, sections))
    times = np.zeros((len(residual[1]), sections))
    for k in range(sections):
        moved_step = log_step.copy()
        moved_step[k] += eps
        knot_part, time_part = _residuals(p, pose, moved_step)
        steps[:, :, k] = (knot_part - residual[0]) / eps
        times[:, k] = (time_part - residual[1]) / eps
    jacobian = local.reshape(knots, width, 9)
    # Unknowns stand one knot further on, so that the first and last knots' missing neighbours have a place.
    size = 3 * (knots + 2)
    hessian, gradient = np.zeros((size + sections, size + sections)), np.zeros(size + sections)
    blocks = np.swapaxes(jacobian, 1, 2) @ jacobian
    cross = np.swapaxes(jacobian, 1, 2) @ steps
    slopes = (jacobian * residual[0][:, :, None]).sum(1)
    for k in range(knots):
        here = slice(3 * k, 3 * k + 9)
        hessian[here, here] += blocks[k]
        hessian[here, size:] += cross[k]
        gradient[here] += slopes[k]
    hessian[size:, :size] = hessian[:size, size:].T
    flat = steps.reshape(-1, sections)
    hessian[size:, size:] = flat.T @ flat + times.T @ times
    gradient[size:] = flat.T @ residual[0].ravel() + times.T @ residual[1]
    used = np.r_[3 : size - 3, size : size + sections]
    return hessian[np.ix_(used, used)], gradient[used]


def fastest(problem: Problem, guesses: Sequence[np.ndarray], finalists: int = SOLVER.finalists) -> Trajectory:
    """The best solution over several first guesses (sideways, nose first, ...); the worst are given up early."""
    rough = [
        solve(problem, guess, iterations=SOLVER.rough_iterations, scales=SOLVER.stiffness[:1]) for guess in guesses
    ]
    order = np.argsort([t.cost for t in rough])[:finalists]
    return min((solve(problem, guesses[k]) for k in order), key=lambda t: t.cost)
