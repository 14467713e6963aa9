"""The navigator: from the robot's pose to velocity commands along a route. numpy only; it runs onboard.

A smooth path is laid through the waypoints once (`policies.navigation.path`), with a speed profile that respects
lateral and longitudinal acceleration and the turning that headings ask for. Each step projects the pose on the path,
steers along it with cross-track feedback, limits the command to the policy's ranges and the command's acceleration, and
advances a small state machine: `following` -> `holding` at the last waypoint; `returning` to before a missed gate;
`lost` (zero command) while the pose cannot be trusted. The published formula (arXiv 2305.14654, appendix I) is not
available; this is ours.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies.navigation.path import RADIUS, SPACING, MotionLimits, lay_path, to_heading_frame
from sim.course.description import Course, Gate, Waypoint
from sim.course.score import passes
from sim.observation import Preview
from sim.planar import wrap

RUN_UP = 0.8
"""m that a robot from rest walks before another skill takes over: none of them begins at rest."""


@dataclass(frozen=True)
class Tuning:
    """The navigator's numbers, each with its unit and reason.

    "By hand" means that the value was set while watching runs and that no other one's figures are on record;
    `barkour evaluate --runs 50 --randomize` measures a change.
    """

    # Reading ahead on the path.
    reaction: float = 0.24
    """s that velocity is read ahead: in evaluation physics the walker's velocity lags its command by 0.22 to 0.24."""
    turn_reaction: float = 0.22
    """s that heading is read ahead: the yaw rate lags by 0.08 only, but turning earlier touches fewer boards and saves
    0.1 s on the official course."""
    window: float = 0.5
    """m of path ahead in which the robot is looked for: a path may pass the same place twice. By hand."""
    least_speed: float = 0.15
    """m/s asked for at least while following: a path that ends its speed at 0 would never be finished. By hand."""

    # Feedback.
    cross_track: float = 2.2
    """1/s: velocity asked for per m beside the path. By hand; the tests drive a robot with such a lag."""
    heading: float = 3.0
    """1/s: yaw rate asked for per rad of heading error. By hand, as above."""
    hold: float = 1.2
    """1/s: velocity per m from the end, while holding there. By hand."""
    hold_still: float = 0.08
    """m/s forward and sideways under which nothing is asked for while holding: the robot rests. By hand."""
    hold_still_turn: float = 0.3
    """rad/s, the same for turning. By hand."""
    return_speed: float = 0.9
    """m/s back to before a missed gate, where the way may be blocked. By hand."""
    return_gain: float = 3.0
    """1/s: at most this much of the distance, so that it arrives slowly. By hand."""

    # The A-frame: feet that are asked for more than the deck's grip allows slide, and robots that slide turn over the
    # edge.
    climb_lead: float = 0.7
    """m/s that is asked for on the A-frame beyond what the robot makes. By hand."""
    climb_least: float = 0.6
    """m/s that may be asked for there in any case: the robot has to get going. By hand."""
    smoothing: float = 0.2
    """Weight of the newest step in the estimate of what the robot makes: 0.1 s at 50 Hz. By hand."""

    # The end of the route.
    arrival: float = 0.6
    """m from the end within which speeds are not read ahead: braking early leaves hind legs on the floor. By hand."""
    arrival_turn: float = 0.4
    """rad/s at most there: a robot that turns on a table sweeps its feet over the edge. By hand."""
    end_reached: float = 0.3
    """m of path before its end from which the robot may hold: the projection can stop short of the end. By hand."""
    end_left: float = 3.0
    """Times the last waypoint's tolerance at which it goes back to the end. By hand."""

    # Poses.
    jump: float = 0.5
    """m between two steps at which a pose is not believed: 25 m/s at 50 Hz."""
    lost_steps: int = 25
    """Poses in a row that are not believed before the newest is: half a second at 50 Hz. By hand."""
    astray: float = 2.0
    """m from the path at which a robot is asked for nothing: it was carried away, and what stands between it and the
    path is not known. By hand."""
    astray_ahead: float = 3.0
    """m of path from its place on that are looked at for that: it may have been sent back. By hand."""
    again_near: float = 0.3
    """m from the start at which a robot that was carried back to it begins anew. By hand."""
    again_turned: float = 0.5
    """rad, the same. By hand."""
    again_off: float = 1.0
    """m from the path ahead of its place, the same: the path may come by the start. By hand."""
    again_seconds: float = 1.0
    """s for which it must be so. By hand."""

    # Gates and what stands in the way.
    missed: float = 0.25
    """m past a gate at which it counts as missed. By hand."""
    back: float = 0.25
    """m of path before a missed gate to which the robot returns. By hand."""
    returned: float = 0.1
    """m from that place at which it has returned. By hand."""
    return_seconds: float = 3.0
    """s after which a return is given up, and the missed gate with it: a table's edge may stand in the way. By hand."""
    tries: int = 2
    """Second tries per gate: a failed obstacle costs 0.1 and its allotted seconds, a try about 2 s, 0.02."""
    progress: float = 0.03
    """m of path that count as progress. By hand."""
    restart: float = 1.0
    """m of path by which the robot was set back when counting progress begins anew. By hand."""
    stuck_seconds: float = 1.5
    """s without progress after which the robot backs off. By hand."""
    begun: float = 0.3
    """m of path from its start within which a robot that does not move waits, perhaps for an operator. By hand."""
    stuck_back: float = 0.4
    """m of path that it backs off. By hand."""
    stuck_tries: int = 6
    """Times at one place; after that it keeps pushing. By hand."""
    stuck_passed: float = 1.0
    """m of path beyond that place at which it has come through. By hand."""

    # Behind a place where the robot was held it goes slowly, and on along the path only as far as it is on it: a robot
    # that was off by a few centimetres met the same pole again as it came back.
    held_seconds: float = 0.4
    """s without progress after which the robot is held. By hand."""
    careful: float = 0.6
    """m of path from there on that are gone with care. By hand."""
    careful_speed: float = 0.6
    """m/s at most on it. By hand."""
    careful_gain: float = 6.0
    """1/s: velocity per m beside the path there. By hand."""
    careful_least: float = 0.35
    """m/s that is asked for back to the path, where it is further off than `careful_near`. By hand."""
    careful_near: float = 0.02
    """m. By hand."""
    careful_off: float = 0.08
    """m beside the path at which nothing is left of the speed along it. By hand."""
    careful_turned: float = 0.4
    """rad off the path's heading, the same. By hand."""
    wedged: float = 0.6
    """rad off the path's heading at which a robot that is held backs off at once, turned between poles. By hand."""
    stuck_further: float = 1.0
    """Of `stuck_back`, how much further every further time. By hand."""
    return_turn: float = 1.2
    """rad/s at most on a way back: a robot between two poles cannot turn. By hand."""


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

    def __init__(
        self,
        start: tuple[float, float, float],
        route: Sequence[Waypoint],
        limits: MotionLimits = MotionLimits(),
        gates: Sequence[Gate] = (),
        tuning: Tuning = Tuning(),
        ends: Sequence[int] = (),
    ) -> None:
        """`gates` are those to pass in order; a missed one is driven at again from before it. Where that is given up,
        so are the gates before the next of `ends` (numbers of gates with which another obstacle begins)."""
        self.route, self.limits, self.gates = tuple(route), limits, tuple(gates)
        self.tuning, self.ends = tuning, tuple(ends)
        self.path = lay_path(start, route, limits)
        self.gate_at = np.array([self._nearest(gate.center) for gate in self.gates])
        self.ahead_of_errors = np.zeros((len(self.path.s), 3))
        """Asked for on top along the path, m/s in the world and rad/s: see `policies.navigation.rehearsal`."""
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
        self._furthest, self._waited, self._stuck, self._stuck_at = 0.0, 0.0, 0, 0.0
        self._careful_until = 0.0
        self._last: np.ndarray | None = None
        self._distrusted = 0
        self._lost = False
        self._at_start = 0.0

    def begin_along(self, s: float) -> tuple[float, float, float]:
        """Begins `s` m along the way, at rest, with the gates before it passed; returns x, y (m) and heading (rad) of
        that place."""
        self.reset()
        i = min(int(np.searchsorted(self.path.s, s)), len(self.path.s) - 1)
        self.s = self._furthest = float(self.path.s[i])
        self.passed = int((self.gate_at < self.s).sum())
        return float(self.path.xy[i, 0]), float(self.path.xy[i, 1]), float(self.path.yaw[i])

    def starts(self) -> np.ndarray:
        """Places on the way from which a robot at rest can go on, m: where it walks, and will for `RUN_UP` m more."""
        path, skills = self.path, np.array([waypoint.skill for waypoint in self.route])
        ahead = np.minimum(path.s[:, None] + np.linspace(0.0, RUN_UP, 5), path.s[-1])
        walks = skills[np.minimum(np.searchsorted(path.marks, ahead + 1e-9), len(skills) - 1)] == "walk"
        return path.s[walks.all(1) & (path.s < path.s[-1] - RUN_UP)]

    def copy(self) -> "Navigator":
        """One that has yet to start, over the same route."""
        other = copy.copy(self)
        other.reset()
        return other

    def _nearest(self, point: np.ndarray) -> float:
        return float(self.path.s[np.linalg.norm(self.path.xy - point, axis=1).argmin()])

    def step(self, pose: Sequence[float] | np.ndarray, dt: float) -> Command:
        """The command for the base at `pose` = (x, y, yaw) in the course frame (m, m, rad), `dt` s after the last."""
        pose = np.asarray(pose, float)
        reason = self._distrust(pose)
        self._lost = bool(reason)
        if reason:
            self.command = np.zeros(3)
            return Command(np.zeros(3, np.float32), self._waypoint().skill, self._index(), "lost", reason)
        xy = pose[:2]
        self._begin_again(pose, dt)
        self._progress(xy, float(pose[2]))
        off = self._off(xy)
        if off > self.tuning.astray:
            self.command, self._last, self._lost = np.zeros(3), xy, True
            reason = f"the robot is {off:.1f} m away from its way"
            return Command(np.zeros(3, np.float32), self._waypoint().skill, self._index(), "lost", reason)
        self._watch_gates(xy)
        self._watch_progress(dt, float(pose[2]))
        if self._last is not None:
            self.made += self.tuning.smoothing * (float(np.linalg.norm(xy - self._last)) / dt - self.made)
        self._last = xy
        wanted = self._wanted(xy, float(pose[2]))
        self.command = self._limited(wanted, dt)
        return Command(self.command.astype(np.float32), self._waypoint().skill, self._index(), self.state)

    def _distrust(self, pose: np.ndarray) -> str:
        if pose.shape != (3,) or not np.isfinite(pose).all():
            return "the pose is not three finite numbers"
        if self._last is not None and np.linalg.norm(pose[:2] - self._last) > self.tuning.jump:
            self._distrusted += 1
            if self._distrusted < self.tuning.lost_steps:
                return f"the pose jumped by {np.linalg.norm(pose[:2] - self._last):.2f} m"
        self._distrusted = 0
        return ""

    def _begin_again(self, pose: np.ndarray, dt: float) -> None:
        """A robot that was carried back to the start takes the whole way again."""
        tuning, path = self.tuning, self.path
        near = np.linalg.norm(pose[:2] - path.xy[0]) < tuning.again_near
        turned = abs(float(wrap(pose[2] - path.yaw[0])))
        here = near and turned < tuning.again_turned and self._off(pose[:2]) > tuning.again_off
        self._at_start = self._at_start + dt if here else 0.0
        if self._at_start > tuning.again_seconds:
            self.reset()

    def _off(self, xy: np.ndarray) -> float:
        """m to the path ahead of the robot's place on it."""
        i = self._sample()
        ahead = self.path.xy[i : i + int(self.tuning.astray_ahead / SPACING) + 1]
        return float(np.sqrt(((ahead - xy) ** 2).sum(1).min()))

    def _sample(self) -> int:
        """Of the path, where the robot is on it."""
        return min(int(round(self.s / SPACING)), len(self.path.s) - 1)

    def _index(self) -> int:
        return int(min(np.searchsorted(self.path.marks, self.s + 1e-9), len(self.route) - 1))

    def _waypoint(self) -> Waypoint:
        return self.route[self._index()]

    def _progress(self, xy: np.ndarray, yaw: float) -> None:
        """Moves `s` to the nearest pose of the path in a window ahead (never back)."""
        path = self.path
        i = int(round(self.s / SPACING))
        if self.state == "returning":
            if np.linalg.norm(path.xy[min(i, len(path.s) - 1)] - xy) < self.tuning.returned:
                self.state = "following"
            return
        window = slice(i, min(i + int(self.tuning.window / SPACING), len(path.s)))
        if window.stop > window.start:
            turned = RADIUS * wrap(yaw - path.yaw[window])
            self.s = float(path.s[window.start + (((path.xy[window] - xy) ** 2).sum(1) + turned**2).argmin()])
        end = self.route[-1]
        remaining = np.linalg.norm(xy - (end.x, end.y))
        if self.s >= path.s[-1] - self.tuning.end_reached and remaining < end.tolerance:
            self.state = "holding"
        elif self.state == "holding" and remaining > self.tuning.end_left * end.tolerance:
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
        elif self.state == "following" and self.s > self.gate_at[self.passed] + self.tuning.missed:
            if self._tries == self.tuning.tries:
                self._give_up_gate()
                return
            self.s = max(self.gate_at[self.passed] - self.tuning.back, 0.0)
            self.state = "returning"
            self.retries, self._tries = self.retries + 1, self._tries + 1

    def _give_up_gate(self) -> None:
        """Its obstacle is failed: the gates of the same obstacle after it are worth nothing."""
        self.passed = next((end for end in self.ends if end > self.passed), len(self.gates))
        self._tries = 0 if self.passed < len(self.gates) else self._tries

    def _watch_progress(self, dt: float, yaw: float) -> None:
        """Backs off along the path where a pole or an edge holds the robot; goes on where it cannot even do that."""
        tuning = self.tuning
        self._returned = self._returned + dt if self.state == "returning" else 0.0
        if self._returned > tuning.return_seconds:
            self.state = "following"
            if self._tries:
                self._give_up_gate()
        onward, back = self._furthest + tuning.progress, self._furthest - tuning.restart
        if self.s > self._stuck_at + tuning.stuck_passed:
            self._stuck = 0
        if self.state != "following" or self.s > onward or self.s < max(back, tuning.begun):
            self._furthest, self._waited = self.s, 0.0
            return
        self._waited += dt
        held = self._waited > tuning.held_seconds and self._furthest > 0
        if held:
            self._careful_until = max(self._careful_until, self.s + tuning.careful)
        wedged = held and abs(float(wrap(self.path.yaw[self._sample()] - yaw))) > tuning.wedged
        near_end = self.s > self.path.s[-1] - tuning.arrival  # leaving the end table again would end the run
        if (wedged or self._waited > tuning.stuck_seconds) and self._stuck < tuning.stuck_tries and not near_end:
            self._stuck_at = max(self._stuck_at, self.s)
            self.s = max(self.s - tuning.stuck_back * (1 + tuning.stuck_further * self._stuck), 0.0)
            self.state, self._stuck = "returning", self._stuck + 1

    def _wanted(self, xy: np.ndarray, yaw: float) -> np.ndarray:
        """Unlimited command in the heading frame."""
        path, tuning = self.path, self.tuning
        i = self._sample()
        ahead, turning = (
            min(int(round((self.s + path.speed[i] * reaction) / SPACING)), len(path.s) - 1)
            for reaction in (tuning.reaction, tuning.turn_reaction)
        )
        if self._waypoint().skill == "jump":  # its speed holds until the last foot is behind the board
            ahead = i
        arriving = self.s > path.s[-1] - tuning.arrival
        speed = max(path.speed[i if arriving else ahead], tuning.least_speed if self.state == "following" else 0.0)
        if self._waypoint().skill == "climb":
            speed = min(speed, max(tuning.climb_least, self.made + tuning.climb_lead))
        error = path.xy[i] - xy
        if self.state == "holding" or i == len(path.s) - 1:
            velocity = tuning.hold * (np.array([self.route[-1].x, self.route[-1].y]) - xy)
            speed = 0.0
        elif self.state == "returning":
            velocity = min(tuning.return_gain, tuning.return_speed / max(float(np.linalg.norm(error)), 1e-6)) * error
            speed, turning = 0.0, i
        elif self.s < self._careful_until and self._waypoint().skill != "jump":  # a slow bound lands on the board
            return self._careful(i, yaw, error, speed)
        else:
            velocity = speed * path.tangent[ahead] + tuning.cross_track * error + self.ahead_of_errors[i, :2]
        turn = path.yaw_slope[turning] * speed - tuning.heading * float(wrap(yaw - path.yaw[turning]))
        if self.state == "following":
            turn += self.ahead_of_errors[i, 2]
        if self.state == "returning":
            turn = float(np.clip(turn, -tuning.return_turn, tuning.return_turn))
        if arriving:
            turn = float(np.clip(turn, -tuning.arrival_turn, tuning.arrival_turn))
        planar = to_heading_frame(velocity, yaw)
        if self.state == "holding":
            planar = np.where(np.abs(planar) < tuning.hold_still, 0.0, planar)
            turn = 0.0 if abs(turn) < tuning.hold_still_turn else turn
        return np.array([*planar, turn])

    def _careful(self, i: int, yaw: float, error: np.ndarray, speed: float) -> np.ndarray:
        """Unlimited command in the heading frame that keeps to pose `i` of the path, `error` (m `[2]`) from the robot,
        first and goes on along it at no more than `speed` (m/s) second."""
        path, tuning = self.path, self.tuning
        off, turned = float(np.linalg.norm(error)), float(wrap(path.yaw[i] - yaw))
        share = max(0.0, 1.0 - off / tuning.careful_off - abs(turned) / tuning.careful_turned)
        speed = share * min(speed, tuning.careful_speed)
        back = tuning.careful_gain * off
        back = max(back, tuning.careful_least) if off > tuning.careful_near else back
        velocity = speed * path.tangent[i] + back * error / max(off, 1e-6)
        return np.array([*to_heading_frame(velocity, yaw), path.yaw_slope[i] * speed + tuning.heading * turned])

    def preview(self, pose: Sequence[float] | np.ndarray, preview: Preview) -> np.ndarray:
        """What a policy sees of the motion behind the last `step`'s command, `[moments, 3]`, float32.

        Along the path where it is followed; the command goes on where the robot returns, holds, is lost or goes with
        care.
        """
        if self.state != "following" or self.s < self._careful_until or self._lost:
            return preview.foreseen(np, lambda later: self.command.astype(np.float32))
        path, i = self.path, self._sample()
        later = np.searchsorted(path.time, path.time[i] + np.array(preview.seconds))
        at = np.minimum(later, len(path.s) - 1)
        if preview.of == "velocity":
            then = path.speed[at, None] * np.column_stack([path.tangent[at], path.yaw_slope[at]])
        else:
            then = np.column_stack([path.xy[at], path.yaw[at]])
        now = np.asarray(pose, float)
        rows = [preview.moment(np, *moment, now) for moment in zip(preview.seconds, then, strict=True)]
        return np.array(rows, np.float32)

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


def course_navigator(course: Course, route: Sequence[Waypoint], limits: MotionLimits = MotionLimits()) -> Navigator:
    """A navigator for a course that drives again at weave gates it has missed."""
    again = [obstacle for obstacle in course.obstacles if obstacle.TRIED_AGAIN]
    firsts = np.cumsum([0, *(len(obstacle.gates) for obstacle in again)])[:-1].tolist()
    # The gate that starts the clock belongs to what comes behind it: a run without it has no time.
    ends = [first for first, before in zip(firsts[1:], again, strict=False) if not before.STARTS_CLOCK]
    return Navigator(course.start, route, limits, [gate for obstacle in again for gate in obstacle.gates], ends=ends)
