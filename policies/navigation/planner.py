"""The fastest motion of an omnidirectional walker through gates and past poles.

Direct transcription: poses at a number of knots per section (a section ends at a gate), one time step per section;
velocities are constant between knots, accelerations change them there (`policies.navigation.transcription`). The time
is minimised by an interior-point method with second derivatives: limits may be violated, at a price that no motion
pays where there is another (an exact penalty), and a barrier that grows steeper keeps off them. Changes of velocity
count beside the time only as a tie-breaker. numpy only.

Barriers and steps follow Nocedal and Wright, Numerical Optimization, 2nd edition, chapters 17 and 19.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from policies.navigation.problem import Problem
from policies.navigation.transcription import Motion, places, used
from sim.planar import to_body


@dataclass(frozen=True)
class Prices:
    """What may not be paid: s for each unit and knot that is over a limit.

    They decide only what is given up where no motion keeps all limits. Set by hand
    (`policies.navigation.navigator.Tuning` says what that means).
    """

    speed: float = 2.0
    """Per m/s or rad/s."""
    change: float = 4.0
    """Per m/s or rad/s of a change of velocity at a knot."""
    clear: float = 30.0
    """Per m of margin that a pole lacks."""
    gate: float = 20.0
    """Per m inside a gate's margins."""
    line: float = 1e4
    """Half of this per m^2 that a crossing is off its gate's line."""
    smooth: float = 4e-3
    """Half of this per (m/s)^2 or (rad/s)^2 of every change of velocity, so that what costs no time is smooth."""


@dataclass(frozen=True)
class Solver:
    """How a problem is solved. By hand: it converges on the shipped and on the generated courses
    (`tests/policies/navigation`)."""

    barriers: tuple[float, ...] = (1e-2, 2e-3, 5e-4, 1e-4, 3e-5)
    """s, one solution after the other; the last leaves the time that many times the active limits from the best."""
    iterations: int = 40
    """At most, per barrier."""
    rough_knots: int = 6
    """Per section, for the first look at a guess."""
    rough_barriers: tuple[float, ...] = (1e-2, 2e-3, 5e-4)
    """For the first look: the first for all guesses, the others for those that promise most."""
    promising: int = 5
    """Guesses that are looked at twice."""
    alike: float = 1e-3
    """s by which two motions of one problem cost the same."""
    finalists: int = 2
    """Guesses that are solved to the end."""
    fine_barriers: tuple[float, ...] = (2e-3, 5e-4, 1e-4, 3e-5)
    """For these: the first lets what the coarse knots cut settle."""
    pace: float = 0.6
    """Share of the envelope's speeds at which a guess is timed."""
    least_time: float = 0.2
    """s that a section of a guess takes at least."""
    damping: float = 1e-4
    """Least that is added to the second derivatives where they are not positive definite."""
    most_damping: float = 1e6
    worse: float = 6.0
    """Factor on it while it does not help."""
    better: float = 3.0
    """Divisor after a step that did."""
    halvings: int = 5
    """Of a step that does not help."""
    largest_move: float = 0.4
    """m, rad or logarithm of a time step by which a step changes anything, at most."""
    inside: float = 0.99
    """Share of the way to its bounds that a multiplier goes in a step."""
    apart: float = 100.0
    """Factor by which a multiplier may differ from what the barrier says."""
    gain: float = 0.1
    """Share of the barrier that a step must save for another one to be tried."""


PRICES, SOLVER = Prices(), Solver()


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A solved problem: poses `[K, 3]` at times `[K]` (s), and what went wrong."""

    pose: np.ndarray
    time: np.ndarray
    violation: float
    """Largest penetration of a margin (m) or overspeed (m/s, rad/s)."""
    cost: float
    """Weighted time plus the price of what is over the limits, s; the smaller the better."""
    strain: float = 0.0
    """Largest acceleration as a share of its limit."""


@threadpool_limits.wrap(limits=1, user_api="blas")  # the matrices are small: threads would only wait for each other
def solve(problem: Problem, guess: np.ndarray, barriers: Sequence[float] = SOLVER.barriers) -> Trajectory:
    """The locally fastest motion near `guess`: poses `[n, 3]` evenly spread over the sections, from the start to the
    end with every gate among them. Runs once per barrier."""
    return _judged(_minimised(_begin(problem, guess), barriers)[0])


@threadpool_limits.wrap(limits=1, user_api="blas")
def fastest(problem: Problem, guesses: Sequence[np.ndarray], finalists: int = SOLVER.finalists) -> Trajectory:
    """The best solution over several first guesses (sideways, nose first, ...); the worst are given up early."""
    if len(guesses) == 1:
        return solve(problem, guesses[0])
    coarse = replace(problem, knots=min(problem.knots, SOLVER.rough_knots))
    rough: list[tuple[Motion, np.ndarray | None]] = [(_begin(coarse, guess), None) for guess in guesses]
    for barriers, kept in ((SOLVER.rough_barriers[:1], SOLVER.promising), (SOLVER.rough_barriers[1:], finalists)):
        rough = _best([_minimised(motion, barriers, known) for motion, known in rough], kept)
    found = []
    for motion, _ in rough:
        fine = _turned(problem, motion.pose)
        step = motion.log_step + np.log(coarse.knots / problem.knots)
        start = Motion(fine, _resampled(fine, motion.pose), step)
        found.append(_judged(_minimised(start, SOLVER.fine_barriers)[0]))
    return min(found, key=lambda t: t.cost)


def _best(solved: Sequence[tuple[Motion, np.ndarray]], count: int) -> list[tuple[Motion, np.ndarray | None]]:
    """The cheapest motions with their multipliers; guesses that led to the same motion are one."""
    costs = [_judged(motion).cost for motion, _ in solved]
    order: list[int] = []
    for k in np.argsort(costs, kind="stable"):
        if all(abs(costs[k] - costs[j]) > SOLVER.alike for j in order):
            order.append(int(k))
    return [solved[k] for k in order[:count]]


def _turned(problem: Problem, guess: np.ndarray) -> Problem:
    """The problem with the guess's whole turns."""
    return replace(problem, end=np.array([*problem.end[:2], guess[-1, 2]]))


def _resampled(problem: Problem, poses: np.ndarray) -> np.ndarray:
    """Poses `[K, 3]` at the problem's knots along `poses`, which have as many to each section."""
    index = np.linspace(0, len(poses) - 1, (len(problem.gates) + 1) * problem.knots + 1)
    pose = np.stack([np.interp(index, np.arange(len(poses)), poses[:, k]) for k in range(3)], 1)
    pose[0], pose[-1] = problem.start, problem.end
    return pose


def _begin(problem: Problem, guess: np.ndarray) -> Motion:
    """The guess at the problem's knots, timed by what the envelope allows."""
    problem = _turned(problem, guess)
    pose, e = _resampled(problem, guess), problem.envelope
    moves = np.diff(pose, axis=0)
    x, y = to_body(moves[:, 0], moves[:, 1], (pose[1:, 2] + pose[:-1, 2]) / 2)
    ahead = np.where(x > 0, x / max(e.forward[1], 1e-3), x / min(e.forward[0], -1e-3))
    least = np.maximum(np.hypot(ahead, y / e.sideways), np.abs(moves[:, 2]) / e.yaw) / SOLVER.pace
    length = np.maximum(least.reshape(-1, problem.knots).sum(1), SOLVER.least_time)
    return Motion(problem, pose, np.log(length / problem.knots))


def _minimised(
    motion: Motion, barriers: Sequence[float], multipliers: np.ndarray | None = None
) -> tuple[Motion, np.ndarray]:
    """The motion moved to the next minimum, one barrier after the other, and its multipliers `[K, m]`."""
    for barrier in barriers:
        motion, multipliers = _newton(motion, barrier, multipliers)
    assert multipliers is not None
    return motion, multipliers


def _newton(motion: Motion, barrier: float, multipliers: np.ndarray | None) -> tuple[Motion, np.ndarray]:
    """Primal-dual Newton steps for one barrier; the multipliers `[K, m]` go on to the next."""
    live, prices = used(motion.problem), _prices(motion.problem)
    damping = 0.0
    cost, slack, excess = _merit(motion, barrier, live, prices)
    if multipliers is None:
        multipliers = barrier / slack
    for _ in range(SOLVER.iterations):
        inverse = live / (slack / multipliers + excess / (prices - multipliers))
        aim = motion.rows + barrier / multipliers - barrier / (prices - multipliers)
        slopes = motion.slopes()
        gradient, hessian = _system(motion, slopes, live * (multipliers + inverse * aim), live * multipliers, inverse)
        while True:
            damped = hessian.copy()
            damped.flat[:: len(hessian) + 1] += damping
            if _positive(damped):
                move = -np.linalg.solve(damped, gradient)
                share, new = _searched(motion, move, barrier, live, prices, cost)
                if new is not None:
                    break
            damping = max(SOLVER.damping, damping * SOLVER.worse)
            if damping > SOLVER.most_damping:
                return motion, multipliers
        columns = np.append(share * move, 0.0)[places(len(motion.pose), len(motion.log_step))[0]]
        turn = inverse * ((slopes @ columns[:, :, None])[:, :, 0] + aim)
        room = np.where(turn > 0, prices - multipliers, multipliers) / np.maximum(np.abs(turn), 1e-12)
        motion, before = new, cost
        cost, slack, excess = _merit(motion, barrier, live, prices)
        low, high = barrier / slack, barrier / excess  # together the price
        multipliers = multipliers + min(1.0, SOLVER.inside * float(room[live].min())) * turn
        most = np.minimum(low * SOLVER.apart, prices - high / SOLVER.apart)
        multipliers = np.clip(multipliers, low / SOLVER.apart, most)
        damping = damping / SOLVER.better if damping > SOLVER.damping else 0.0
        if before - cost < SOLVER.gain * barrier:
            break
    return motion, multipliers


def _positive(matrix: np.ndarray) -> bool:
    """Whether a symmetric matrix is positive definite."""
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def _searched(
    motion: Motion, move: np.ndarray, barrier: float, live: np.ndarray, prices: np.ndarray, cost: float
) -> tuple[float, Motion | None]:
    """The motion a share of the move on that costs less, if there is one, and that share."""
    share = min(1.0, SOLVER.largest_move / float(np.abs(move).max()))
    inner = 3 * (len(motion.pose) - 2)
    for _ in range(SOLVER.halvings):
        pose = motion.pose.copy()
        pose[1:-1] += share * move[:inner].reshape(-1, 3)
        new = Motion(motion.problem, pose, motion.log_step + share * move[inner:])
        if _merit(new, barrier, live, prices)[0] < cost:
            return share, new
        share /= 2
    return share, None


def _prices(p: Problem) -> np.ndarray:
    """Of the rows of a motion, `[m]`."""
    return np.array([*[PRICES.speed] * 6, *[PRICES.change] * 3, *[PRICES.clear] * len(p.poles), *[PRICES.gate] * 2])


def _weights(p: Problem) -> np.ndarray:
    """What a second of every section's time step costs, `[sections]`."""
    weights = np.ones(len(p.gates) + 1)
    weights[: len(p.section_weights)] = p.section_weights
    return weights * p.knots


def _merit(
    motion: Motion, barrier: float, live: np.ndarray, prices: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """The time with all prices and barriers, and every row's slack and excess `[K, m]`.

    A row is excess less slack, both positive and as large as makes their barriers and the price least.
    """
    part = prices * motion.rows
    root = np.hypot(part, 2 * barrier)
    slack, excess = (2 * barrier - part + root) / (2 * prices), (2 * barrier + part + root) / (2 * prices)
    walls = prices * excess - barrier * np.log(slack * excess)
    cost = _weights(motion.problem) @ np.exp(motion.log_step) + (walls * live).sum()
    soft = PRICES.smooth * (motion.change**2).sum() + PRICES.line * (motion.off**2).sum()
    return float(cost + soft / 2), slack, excess


def _system(
    motion: Motion, slopes: np.ndarray, push: np.ndarray, multipliers: np.ndarray, inverse: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and second derivatives over the inner poses and the log time steps."""
    change, line = motion.change_columns(), motion.off_slopes()
    transposed = np.swapaxes(slopes, 1, 2)
    blocks = (transposed * inverse[:, None, :]) @ slopes + motion.curvature(multipliers)
    blocks += PRICES.smooth * np.swapaxes(change, 1, 2) @ change
    blocks += PRICES.line * line[:, :, None] * line[:, None, :]
    sums = (transposed @ push[:, :, None])[:, :, 0] + PRICES.line * line * motion.off[:, None]
    sums += PRICES.smooth * (motion.change[:, None, :] @ change)[:, 0]
    place, size = places(len(motion.pose), len(motion.log_step))
    gradient = np.bincount(place.ravel(), sums.ravel(), size + 1)[:size]
    pair = place[:, :, None] * (size + 1) + place[:, None, :]
    hessian = np.bincount(pair.ravel(), blocks.ravel(), (size + 1) ** 2).reshape(size + 1, size + 1)[:size, :size]
    steps = _weights(motion.problem) * np.exp(motion.log_step)
    inner = np.arange(size - len(steps), size)
    gradient[inner] += steps
    hessian[inner, inner] += steps
    return gradient, hessian


def _judged(motion: Motion) -> Trajectory:
    """The trajectory and what it violates."""
    p = motion.problem
    over = np.maximum(motion.rows, 0) * used(p)
    most, e = over.max(0), p.envelope
    limit = np.array([e.acceleration, e.yaw_acceleration, e.yaw_acceleration])
    strain = 1 + (motion.rows[:, 6:9] / motion.span[:, None] / limit)[used(p)[:, 6:9].any(1)].max()
    cost = float(_weights(p) @ np.exp(motion.log_step) + (over * _prices(p)).sum())
    time = np.concatenate([[0.0], np.cumsum(motion.step)])
    return Trajectory(motion.pose, time, float(max(most[:6].max(), most[9:-2].max(initial=0.0))), cost, float(strain))
