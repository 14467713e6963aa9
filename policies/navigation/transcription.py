"""The constraints of a planned motion, with first and second derivatives.

A motion is poses `[K, 3]` at knots and one log time step per section. Every constraint depends on at most eleven of
these unknowns: the poses before, at and after its knot, and the log time steps before and after it ("columns").
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from policies.navigation.problem import Problem
from sim.planar import to_body

COLUMNS = 11
EASED = 0.01
"""m/s by which the length of a change of velocity is rounded at zero, where it has no slope. By hand."""

_STEP = np.zeros((5, COLUMNS))
"""From columns to a step's change of x, y, yaw, its middle yaw and its log time step."""
_STEP[[0, 1, 2], [3, 4, 5]], _STEP[[0, 1, 2], [6, 7, 8]] = -1, 1
_STEP[3, [5, 8]], _STEP[4, 10] = 0.5, 1
_PAIR = np.zeros((8, COLUMNS))
"""From columns to the changes before and after a knot, and the two log time steps."""
_PAIR[[0, 1, 2], [0, 1, 2]], _PAIR[[0, 1, 2], [3, 4, 5]] = -1, 1
_PAIR[[3, 4, 5], [3, 4, 5]], _PAIR[[3, 4, 5], [6, 7, 8]] = -1, 1
_PAIR[6, 9], _PAIR[7, 10] = 1, 1


@dataclass(frozen=True, eq=False)
class Motion:
    """A motion of a problem: what is asked of `rows` must not be positive.

    Rows of a knot, `m` of them: six for the speeds of the step behind it (m/s, rad/s over the limits), three for the
    changes of velocity there (m/s, rad/s more than the accelerations allow), one a pole (m that the margin lacks) and
    two for the ends of a gate (m).
    """

    problem: Problem
    pose: np.ndarray
    log_step: np.ndarray

    @cached_property
    def step(self) -> np.ndarray:
        """s of every step, `[K - 1]`."""
        return np.repeat(np.exp(self.log_step), self.problem.knots)

    @cached_property
    def rate(self) -> np.ndarray:
        """Velocities in the world, `[K - 1, 3]`."""
        return np.diff(self.pose, axis=0) / self.step[:, None]

    @cached_property
    def _body_rate(self) -> np.ndarray:
        middle = (self.pose[1:, 2] + self.pose[:-1, 2]) / 2
        return np.stack([*to_body(self.rate[:, 0], self.rate[:, 1], middle), self.rate[:, 2]], 1)

    @cached_property
    def _around(self) -> tuple[np.ndarray, np.ndarray]:
        """Seconds of the step before and of the one after every knot, `[K]` each; nothing at the ends."""
        return np.append(0.0, self.step), np.append(self.step, 0.0)

    @cached_property
    def span(self) -> np.ndarray:
        """s between the middles of the steps before and after a knot, `[K]`; half a step at the ends."""
        return (self._around[0] + self._around[1]) / 2

    @cached_property
    def change(self) -> np.ndarray:
        """Change of velocity in the world at every knot, `[K, 3]`."""
        p = self.problem
        last = self.rate[-1] if p.end_velocity is None else np.array([*p.end_velocity, 0.0])
        return np.diff(np.concatenate([[[*p.start_velocity, 0.0]], self.rate, [last]]), axis=0)

    @cached_property
    def _length(self) -> np.ndarray:
        return np.sqrt((self.change[:, :2] ** 2).sum(1) + EASED**2)

    @cached_property
    def rows(self) -> np.ndarray:
        """`[K, m]`; those that `used` does not name say nothing."""
        p, e = self.problem, self.problem.envelope
        out = np.full((len(self.pose), 11 + len(p.poles)), -1.0)
        out[:-1, :3] = self._body_rate - [e.forward[1], e.sideways, e.yaw]
        out[:-1, 3:6] = [e.forward[0], -e.sideways, -e.yaw] - self._body_rate
        out[:, 6] = self._length - e.acceleration * self.span
        out[:, 7] = self.change[:, 2] - e.yaw_acceleration * self.span
        out[:, 8] = -self.change[:, 2] - e.yaw_acceleration * self.span
        if p.poles:
            out[:, 9:-2] = [*p.margins, *[p.margin] * (len(p.poles) - len(p.margins))] - self._room[0]
        for k, along, left, length, margin in _gates(p):
            t = float((self.pose[k, :2] - left) @ along)
            out[k, -2:] = t - (length - margin), margin - t
        return out

    @cached_property
    def off(self) -> np.ndarray:
        """m from the gate's line at every gate's knot, zero elsewhere, `[K]`."""
        out = np.zeros(len(self.pose))
        for k, along, left, _, _ in _gates(self.problem):
            out[k] = (self.pose[k, 0] - left[0]) * along[1] - (self.pose[k, 1] - left[1]) * along[0]
        return out

    def off_slopes(self) -> np.ndarray:
        """Slopes of `off` by the columns, `[K, 11]`."""
        out = np.zeros((len(self.pose), COLUMNS))
        for k, along, _, _, _ in _gates(self.problem):
            out[k, 3:5] = along[1], -along[0]
        return out

    def change_slopes(self) -> np.ndarray:
        """Slopes of `change` by the columns of `_PAIR`, `[K, 3, 8]`."""
        out = np.zeros((len(self.pose), 3, 8))
        axes = [0, 1, 2]
        out[1:, axes, axes] = -1 / self.step[:, None]
        out[:-1, axes, [3, 4, 5]] = 1 / self.step[:, None]
        out[1:, :, 6], out[:-1, :, 7] = self.rate, -self.rate
        if self.problem.end_velocity is None:
            out[-1] = 0
        return out

    def change_columns(self) -> np.ndarray:
        """Slopes of `change` by the columns, `[K, 3, 11]`."""
        return self.change_slopes() @ _PAIR

    def slopes(self) -> np.ndarray:
        """Slopes of the rows by the columns, `[K, m, 11]`."""
        p, e, h = self.problem, self.problem.envelope, self.step
        out = np.zeros((*self.rows.shape, COLUMNS))
        middle = (self.pose[1:, 2] + self.pose[:-1, 2]) / 2
        c, s = np.cos(middle) / h, np.sin(middle) / h
        x, y = self._body_rate[:, 0], self._body_rate[:, 1]
        part = np.zeros((len(h), 3, 5))
        part[:, 0, 0], part[:, 0, 1], part[:, 0, 3] = c, s, y
        part[:, 1, 0], part[:, 1, 1], part[:, 1, 3] = -s, c, -x
        part[:, 2, 2] = 1 / h
        part[:, :, 4] = -self._body_rate
        out[:-1, :3] = part @ _STEP
        out[:-1, 3:6] = -out[:-1, :3]
        changes = self.change_slopes()
        pair = np.zeros((len(self.pose), 3, 8))
        pair[:, 0] = (self.change[:, :2, None] * changes[:, :2]).sum(1) / self._length[:, None]
        pair[:, 1], pair[:, 2] = changes[:, 2], -changes[:, 2]
        limits = np.array([e.acceleration, e.yaw_acceleration, e.yaw_acceleration]) / 2
        pair[:, :, 6] -= limits * self._around[0][:, None]
        pair[:, :, 7] -= limits * self._around[1][:, None]
        out[:, 6:9] = pair @ _PAIR
        if p.poles:
            out[:, 9:-2, 3:6] = -self._room[1]
        for k, along, _, _, _ in _gates(p):
            out[k, -2:, 3:5] = along, -along
        return out

    def curvature(self, weight: np.ndarray) -> np.ndarray:
        """Second derivatives by the columns of the rows' sum with these weights `[K, m]`: `[K, 11, 11]`."""
        return self._speed_curvature(weight) + self._change_curvature(weight) + self._room_curvature(weight)

    def _speed_curvature(self, weight: np.ndarray) -> np.ndarray:
        h, middle = self.step, (self.pose[1:, 2] + self.pose[:-1, 2]) / 2
        c, s = np.cos(middle) / h, np.sin(middle) / h
        a, b, w = (weight[:-1, :3] - weight[:-1, 3:6]).T
        x, y, turn = self._body_rate.T
        part = np.zeros((len(h), 5, 5))
        part[:, 0, 3], part[:, 1, 3] = -a * s - b * c, a * c - b * s
        part[:, 0, 4], part[:, 1, 4] = -a * c + b * s, -a * s - b * c
        part[:, 2, 4], part[:, 3, 4] = -w / h, -a * y + b * x
        part += np.swapaxes(part, 1, 2)
        part[:, 3, 3], part[:, 4, 4] = -a * x - b * y, a * x + b * y + w * turn
        out = np.zeros((len(self.pose), COLUMNS, COLUMNS))
        out[:-1] = _STEP.T @ part @ _STEP
        return out

    def _change_curvature(self, weight: np.ndarray) -> np.ndarray:
        e = self.problem.envelope
        unit = self.change[:, :2] / self._length[:, None]
        slopes = self.change_slopes()[:, :2]
        along = (unit[:, :, None] * slopes).sum(1)
        across = np.swapaxes(slopes, 1, 2) @ slopes - along[:, :, None] * along[:, None, :]
        part = (weight[:, 6] / self._length)[:, None, None] * across
        push = np.concatenate([weight[:, 6:7] * unit, weight[:, 7:8] - weight[:, 8:9]], 1)
        limit = (weight[:, 6] * e.acceleration + (weight[:, 7] + weight[:, 8]) * e.yaw_acceleration) / 2
        before, after = push[1:], push[:-1]
        if self.problem.end_velocity is None:
            before = before * (np.arange(len(before)) < len(before) - 1)[:, None]
        for k in range(3):
            part[1:, k, 6] += before[:, k] / self.step
            part[1:, 6, k] += before[:, k] / self.step
            part[:-1, 3 + k, 7] -= after[:, k] / self.step
            part[:-1, 7, 3 + k] -= after[:, k] / self.step
        part[1:, 6, 6] -= (before * self.rate).sum(1)
        part[:-1, 7, 7] += (after * self.rate).sum(1)
        part[:, 6, 6] -= limit * self._around[0]
        part[:, 7, 7] -= limit * self._around[1]
        return _PAIR.T @ part @ _PAIR

    def _room_curvature(self, weight: np.ndarray) -> np.ndarray:
        out = np.zeros((len(self.pose), COLUMNS, COLUMNS))
        if not self.problem.poles:
            return out
        _, _, (x, y, nx, ny, bend) = self._room
        w = -weight[:, 9:-2]
        c, s = np.cos(self.pose[:, 2:]), np.sin(self.pose[:, 2:])
        # Around a corner the distance bends: along the tangent of the pole's place in the body's frame.
        tx, ty = -ny, nx
        tangent = np.stack([-(c * tx - s * ty), -(s * tx + c * ty), tx * y - ty * x], 2)
        part = np.einsum("kp,kpi,kpj->kij", w * bend, tangent, tangent)
        part[:, 2, 2] -= (w * (nx * x + ny * y)).sum(1)
        turned = np.stack([(w * (s * nx + c * ny)).sum(1), (w * (-c * nx + s * ny)).sum(1)], 1)
        part[:, 2, :2] += turned
        part[:, :2, 2] += turned
        out[:, 3:6, 3:6] = part
        return out

    @cached_property
    def _room(self) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
        """Free space to every pole `[K, P]`, m; its slopes by the pose `[K, P, 3]`; the pole's place in the body's
        frame, the direction away from the body there, and the curvature of the distance across it (1/m)."""
        body, pose = self.problem.body, self.pose
        poles = np.array([(q.x, q.y, q.radius) for q in self.problem.poles])
        x, y = to_body(poles[:, 0] - pose[:, :1], poles[:, 1] - pose[:, 1:2], pose[:, 2:])
        front, back, oy = x - body.front, -body.rear - x, np.abs(y) - body.half_width
        ox = np.maximum(front, back)
        out = np.hypot(np.maximum(ox, 0), np.maximum(oy, 0))
        outside, safe = out > 1e-9, np.maximum(out, 1e-9)
        nx = np.where(outside, np.maximum(ox, 0) / safe, ox > oy) * np.where(front > back, 1.0, -1.0)
        ny = np.where(outside, np.maximum(oy, 0) / safe, ox <= oy) * np.where(y > 0, 1.0, -1.0)
        c, s = np.cos(pose[:, 2:]), np.sin(pose[:, 2:])
        push = np.stack([-(c * nx - s * ny), -(s * nx + c * ny), nx * y - ny * x], 2)
        bend = np.where((ox > 0) & (oy > 0), 1 / np.maximum(out, 0.02), 0.0)
        return out + np.minimum(np.maximum(ox, oy), 0) - poles[:, 2], push, (x, y, nx, ny, bend)


def used(p: Problem) -> np.ndarray:
    """Which rows of a problem's motions say something, `[K, m]`: the given poses have none for poles."""
    knots = (len(p.gates) + 1) * p.knots + 1
    out = np.zeros((knots, 11 + len(p.poles)), bool)
    out[:-1, :6], out[:, 6:9], out[1:-1, 9:-2] = True, True, True
    out[p.knots : -1 : p.knots, -2:] = True
    out[-1, 6:9] = p.end_velocity is not None
    return out


def places(knots: int, sections: int) -> tuple[np.ndarray, int]:
    """Which unknown each of a knot's columns is, `[K, 11]`, and how many unknowns there are.

    The first and last pose are given: their place, and that of steps beyond them, is one past the unknowns.
    """
    inner = 3 * (knots - 2)
    pose = np.full((knots + 2, 3), inner + sections)
    pose[2:-2] = np.arange(inner).reshape(-1, 3)
    section = np.repeat(np.arange(sections), (knots - 1) // sections) + inner
    before, after = np.append(inner + sections, section), np.append(section, inner + sections)
    return np.concatenate([pose[:-2], pose[1:-1], pose[2:], before[:, None], after[:, None]], 1), inner + sections


def _gates(p: Problem) -> list[tuple[int, np.ndarray, np.ndarray, float, float]]:
    """Knot, unit vector from left to right, left end, length and margin of every gate."""
    found = []
    for i, gate in enumerate(p.gates):
        left, right = np.array(gate.left), np.array(gate.right)
        length = float(np.linalg.norm(right - left))
        margin = min(p.gate_margin, p.gate_share * length)
        found.append(((i + 1) * p.knots, (right - left) / length, left, length, margin))
    return found
