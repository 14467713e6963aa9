"""The navigator: from the robot's pose to velocity commands along a route. numpy only; it runs onboard.

A smooth path is laid through the waypoints once (`policies.navigation.path`), with a speed profile that respects
lateral and longitudinal acceleration and the turning that headings ask for. Each step projects the pose on the path,
steers along it with cross-track feedback, limits the command to the policy's ranges and the command's acceleration, and
advances a small state machine: `following` -> `holding` at the last waypoint; `returning` to before a missed gate;
`lost` (zero command) while the pose cannot be trusted. The published formula (arXiv 2305.14654, appendix I) is not
available; this is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies.navigation.path import RADIUS, SPACING, Limits, lay_path, to_heading_frame, wrap
from sim.course.description import Course, Gate, Waypoint
from sim.course.score import passes


@dataclass(frozen=True)
class Command:
    """What the policy is asked to do next."""

    velocity: np.ndarray
    """Forward and leftward velocity (m/s) and yaw rate (rad/s) in the heading frame, float32 `[3]`."""
    skill: str
    waypoint: int
    """Index of the waypoint that is being approached."""
    state: str
    """`following`, `returning`, `holding` or `lost`."""
    reason: str = ""


class Navigator:
    """Follows one route. Call `step` once per control period with the newest pose."""

    REACTION, TURN_REACTION = 0.24, 0.22
    """How far ahead velocity and heading are read from the path, s. In evaluation physics the walker's velocity lags
    its command by 0.22 to 0.24; its yaw rate by 0.08 only, but turning earlier touches fewer boards and saves 0.1 s."""
    STUCK_SECONDS, STUCK_BACK, STUCK_TRIES = 1.5, 0.4, 6
    """Without progress for this long the robot backs off this far along the path (m), this often per run."""
    CLIMB_LEAD, CLIMB_LEAST, SMOOTHING = 0.7, 0.6, 0.2
    """On the A-frame no more is asked than the robot makes plus this (m/s), though at least this: feet that are asked
    for more than the deck's grip allows slide, and robots that slide turn over the edge. Weight of the newest step in
    the estimate of what it makes."""
    ARRIVAL = 0.6
    """Distance from the end within which speeds are not read ahead: braking early leaves hind legs on the floor, m."""
    ARRIVAL_TURN = 0.4
    """Fastest turn there, rad/s: a robot that turns on a table sweeps its feet over the edge."""
    CROSS_TRACK, HEADING = 2.2, 3.0
    JUMP = 0.5
    """A pose that moves further than this between two steps (m) is not believed."""
    LOST_STEPS = 25
    MISSED, BACK = 0.25, 0.25
    """A gate counts as missed this far past it; the robot then returns to this far before it (m of path)."""
    RETURN_SECONDS = 3.0
    """A return that takes longer is given up, and the missed gate with it: a table's edge may stand in the way."""
    TRIES = 2
    """Second tries per gate: a failed obstacle costs 0.1 and its allotted seconds, a try about 2 s, 0.02."""

    def __init__(
        self,
        start: tuple[float, float, float],
        route: Sequence[Waypoint],
        limits: Limits = Limits(),
        gates: Sequence[Gate] = (),
    ) -> None:
        """`gates` are those to pass in order; a missed one is driven at again from before it."""
        self.route, self.limits, self.gates = tuple(route), limits, tuple(gates)
        self.path = lay_path(start, route, limits)
        self.gate_at = np.array([self._nearest(gate.center) for gate in self.gates])
        self.reset()

    def reset(self) -> None:
        """Back to the start of the route."""
        self.s = 0.0
        self.state = "following"
        self.command = np.zeros(3)
        self.made = 0.0
        """Smoothed speed over the ground, m/s."""
        self.passed = 0
        self.retries = 0
        self._tries = 0
        self._returned = 0.0
        self._furthest, self._waited, self._stuck = 0.0, 0.0, 0
        self._last: np.ndarray | None = None
        self._distrusted = 0

    def _nearest(self, point: np.ndarray) -> float:
        return float(self.path.s[np.linalg.norm(self.path.xy - point, axis=1).argmin()])

    def step(self, pose: Sequence[float] | np.ndarray, dt: float) -> Command:
        """The command for the base at `pose` = (x, y, yaw) in the course frame (m, m, rad), `dt` s after the last."""
        pose = np.asarray(pose, float)
        reason = self._distrust(pose)
        if reason:
            self.command = np.zeros(3)
            return Command(np.zeros(3, np.float32), self._waypoint().skill, self._index(), "lost", reason)
        xy = pose[:2]
        self._progress(xy, float(pose[2]))
        self._watch_gates(xy)
        self._watch_progress(dt)
        if self._last is not None:
            self.made += self.SMOOTHING * (float(np.linalg.norm(xy - self._last)) / dt - self.made)
        self._last = xy
        wanted = self._wanted(xy, float(pose[2]))
        self.command = self._limited(wanted, dt)
        return Command(self.command.astype(np.float32), self._waypoint().skill, self._index(), self.state)

    def _distrust(self, pose: np.ndarray) -> str:
        if pose.shape != (3,) or not np.isfinite(pose).all():
            return "the pose is not three finite numbers"
        if self._last is not None and np.linalg.norm(pose[:2] - self._last) > self.JUMP:
            self._distrusted += 1
            if self._distrusted < self.LOST_STEPS:
                return f"the pose jumped by {np.linalg.norm(pose[:2] - self._last):.2f} m"
        self._distrusted = 0
        return ""

    def _index(self) -> int:
        return int(min(np.searchsorted(self.path.marks, self.s + 1e-9), len(self.route) - 1))

    def _waypoint(self) -> Waypoint:
        return self.route[self._index()]

    def _progress(self, xy: np.ndarray, yaw: float) -> None:
        """Moves `s` to the nearest pose of the path in a window ahead (never back)."""
        path = self.path
        i = int(round(self.s / SPACING))
        if self.state == "returning":
            if np.linalg.norm(path.xy[min(i, len(path.s) - 1)] - xy) < 0.1:
                self.state = "following"
            return
        window = slice(i, min(i + int(0.5 / SPACING), len(path.s)))
        if window.stop > window.start:
            turned = RADIUS * wrap(path.yaw[window] - yaw)
            self.s = float(path.s[window.start + (((path.xy[window] - xy) ** 2).sum(1) + turned**2).argmin()])
        end = self.route[-1]
        remaining = np.linalg.norm(xy - (end.x, end.y))
        if self.s >= path.s[-1] - 0.3 and remaining < end.tolerance:
            self.state = "holding"
        elif self.state == "holding" and remaining > 3 * end.tolerance:
            self.state = "following"

    def _watch_gates(self, xy: np.ndarray) -> None:
        if self._last is None or self.passed >= len(self.gates):
            return
        before, here = (float(self._last[0]), float(self._last[1])), (float(xy[0]), float(xy[1]))
        gate, moved = self.gates[self.passed], float(np.linalg.norm(xy - self._last))
        # Near it or across it: a noisy pose can fall between the scorer's two rules without having missed the gate.
        if passes(gate, before, here, moved) or passes(gate, before, here, np.inf):
            self.passed += 1
            self._tries = 0
            self.state = "following" if self.state == "returning" else self.state
        elif self.state == "following" and self.s > self.gate_at[self.passed] + self.MISSED:
            if self._tries == self.TRIES:
                self.passed = len(self.gates)  # its obstacle is failed: the gates after it are worth nothing
                return
            self.s = max(self.gate_at[self.passed] - self.BACK, 0.0)
            self.state = "returning"
            self.retries, self._tries = self.retries + 1, self._tries + 1

    def _watch_progress(self, dt: float) -> None:
        """Backs off along the path where a pole or an edge holds the robot; goes on where it cannot even do that."""
        self._returned = self._returned + dt if self.state == "returning" else 0.0
        if self._returned > self.RETURN_SECONDS:
            self.state = "following"
            if self._tries:
                self.passed = len(self.gates)
        if self.state != "following" or self.s > self._furthest + 0.03 or self.s < self._furthest - 1.0:
            self._furthest, self._waited = self.s, 0.0
            return
        self._waited += dt
        near_end = self.s > self.path.s[-1] - self.ARRIVAL  # leaving the end table again would end the run
        if self._waited > self.STUCK_SECONDS and self._stuck < self.STUCK_TRIES and not near_end:
            self.s = max(self.s - self.STUCK_BACK, 0.0)
            self.state, self._stuck = "returning", self._stuck + 1

    def _wanted(self, xy: np.ndarray, yaw: float) -> np.ndarray:
        """Unlimited command in the heading frame."""
        path = self.path
        i = min(int(round(self.s / SPACING)), len(path.s) - 1)
        ahead, turning = (
            min(int(round((self.s + path.speed[i] * reaction) / SPACING)), len(path.s) - 1)
            for reaction in (self.REACTION, self.TURN_REACTION)
        )
        if self._waypoint().skill == "jump":  # its speed holds until the last foot is behind the board
            ahead = i
        arriving = self.s > path.s[-1] - self.ARRIVAL
        speed = max(path.speed[i if arriving else ahead], 0.15 if self.state == "following" else 0.0)
        if self._waypoint().skill == "climb":
            speed = min(speed, max(self.CLIMB_LEAST, self.made + self.CLIMB_LEAD))
        error = path.xy[i] - xy
        if self.state == "holding" or i == len(path.s) - 1:
            velocity = 1.2 * (np.array([self.route[-1].x, self.route[-1].y]) - xy)
            speed = 0.0
        elif self.state == "returning":
            velocity = min(2.0, 0.6 / max(float(np.linalg.norm(error)), 1e-6)) * error
            speed, turning = 0.0, i
        else:
            velocity = speed * path.tangent[ahead] + self.CROSS_TRACK * error
        turn = path.yaw_slope[turning] * speed + self.HEADING * float(wrap(path.yaw[turning] - yaw))
        if arriving:
            turn = float(np.clip(turn, -self.ARRIVAL_TURN, self.ARRIVAL_TURN))
        planar = to_heading_frame(velocity, yaw)
        if self.state == "holding":
            planar = np.where(np.abs(planar) < 0.08, 0.0, planar)
            turn = 0.0 if abs(turn) < 0.3 else turn
        return np.array([*planar, turn])

    def _limited(self, wanted: np.ndarray, dt: float) -> np.ndarray:
        """`wanted` within the command ranges (direction kept) and the acceleration limits."""
        limits = self.limits
        ranges = np.array([limits.forward, limits.sideways, limits.yaw])
        bound = np.where(wanted > 0, ranges[:, 1], -ranges[:, 0])
        scale = max(1.0, *(np.abs(wanted[:2]) / bound[:2]))
        wanted = np.array([wanted[0] / scale, wanted[1] / scale, np.clip(wanted[2], *limits.yaw)])
        change = wanted - self.command
        planar = np.linalg.norm(change[:2])
        if planar > limits.acceleration * dt:
            change[:2] *= limits.acceleration * dt / planar
        change[2] = np.clip(change[2], -limits.yaw_acceleration * dt, limits.yaw_acceleration * dt)
        return self.command + change


def course_navigator(course: Course, route: Sequence[Waypoint], limits: Limits = Limits()) -> Navigator:
    """A navigator for a course that drives again at weave gates it has missed."""
    gates = [gate for o in course.obstacles if o.name in ("start table", "weave poles") for gate in o.gates]
    return Navigator(course.start, route, limits, gates)
