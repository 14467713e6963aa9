"""Where the robot is now, from poses that are late, noisy and rare. It runs onboard.

A pose is `age` seconds old when it is known, and a robot at 2 m/s is 12 cm further on after 60 ms. What was asked of it
since is known, and how its velocity answers: the motion since the pose's stamp is that answer plus an offset of the
velocity, which an alpha-beta filter learns from the poses (a slope, a push and a foot that slips are such offsets).
Where the robot reckons its own motion (`policies.estimation.odometry`), that takes the answer's place as soon as it has
been made, without an offset: poses then only hold the sum of it where it belongs. Where it knows which feet stand, the
course's map takes part of the poses' drift away (`policies.navigation.map_match`). How noisy poses are is estimated
from how they scatter around the prediction, so there is no option to set wrong.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies.estimation.odometry import Motion
from policies.navigation.map_match import MapMatch
from policies.navigation.response import ModelledWalker, Response

Place = tuple[float, float, float, float]
"""x, y, z (m) and heading (rad)."""
Past = tuple[Motion, Place]
"""Velocity in a period, as reckoned or by the model, and the `Place` at its start."""


@dataclass(frozen=True)
class EstimateTuning:
    """The filter's numbers, each with its unit and reason."""

    acceleration: float = 3.0
    """m/s^2 by which the motion differs from the model: the swing of a trot, pushes, slopes. By hand."""
    turning: float = 12.0
    """rad/s^2, the same of the heading. By hand."""
    rising: float = 3.0
    """m/s^2, the same of the height, whose motion nothing commands. By hand."""
    reckoned: tuple[float, float, float] = (0.5, 0.5, 0.3)
    """The same of motion that the robot has reckoned itself: in the plane, up, and of the heading. By hand."""
    noise: float = 0.005
    """m and rad of noise that are taken for granted before anything was seen."""
    least_noise: float = 0.001
    """m and rad that are taken at least."""
    memory: float = 0.04
    """Weight of the newest pose in the estimate of the noise: 25 poses. By hand."""
    jump: float = 0.5
    """m between pose and prediction at which nothing is learned from the pose; as `navigator.Tuning.jump`."""
    agreed: int = 25
    """Such poses in a row after which they are believed: as `navigator.Tuning.lost_steps`."""
    longest: float = 0.6
    """s of motion that are remembered: older poses are taken as of the oldest moment known."""


class _Axis:
    """An alpha-beta filter's gains for one coordinate, from the noise that its poses have."""

    def __init__(self, process: float, reckoned: float, tuning: EstimateTuning) -> None:
        """`process` is what the motion differs by from the model's (m/s^2 or rad/s^2), `reckoned` from the reckoned."""
        self.process, self.reckoned, self.tuning = process, reckoned, tuning
        self.variance = tuning.noise**2
        self.last = 0.0

    def gains(self, period: float, innovation: float, reckoned: bool) -> tuple[float, float]:
        """Shares of an innovation that go to the place, and per second to the velocity."""
        noise = max(math.sqrt(self.variance), self.tuning.least_noise)
        process = self.reckoned if reckoned else self.process
        index = process * period**2 / noise  # Kalata's tracking index
        r = (4 + index - math.sqrt(8 * index + index**2)) / 4
        alpha = 1 - r**2
        beta = 2 * (2 - alpha) - 4 * math.sqrt(1 - alpha)
        # Innovations scatter by noise / sqrt(1 - alpha); what all of them share is no noise, so differences are taken.
        scatter = (innovation - self.last) ** 2 / 2 * (1 - alpha)
        self.variance += self.tuning.memory * (scatter - self.variance)
        self.last = innovation
        return alpha, beta / period


class PoseEstimate:
    """Of one robot. Once a control period `told` with the newest pose and, where it is known, its own motion since the
    last time; then `asked` with what is asked of it."""

    def __init__(
        self, response: Response, match: MapMatch | None = None, tuning: EstimateTuning = EstimateTuning()
    ) -> None:
        """`response` is the walker's; its period is the control period. `match` holds poses against the map."""
        self.period, self.match, self.tuning = response.period, match, tuning
        self._walker = ModelledWalker(response)
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        tuning = self.tuning
        plane, up, around = tuning.reckoned
        ahead = tuning.acceleration, plane
        processes = ahead, ahead, (tuning.rising, up), (tuning.turning, around)
        self._axes = [_Axis(*process, tuning) for process in processes]
        if self.match:
            self.match.reset()
        self._walker.reset()
        self._off = [0.0, 0.0, 0.0, 0.0]
        """What the velocity is beyond the model's: ahead, left, up (m/s) and around (rad/s)."""
        self._past: deque[Past] = deque(maxlen=max(round(tuning.longest / self.period), 2))
        self._reckoned = False
        """Whether the last period's motion was the robot's own reckoning."""
        self._place: Place | None = None
        self._seen: Place | None = None
        self._since = 0.0
        self._strange = 0

    @property
    def noise(self) -> tuple[float, float]:
        """Standard deviations that poses seem to have: of the place, m, and of the heading, rad."""
        x, y, _, yaw = (axis.variance for axis in self._axes)
        return math.sqrt((x + y) / 2), math.sqrt(yaw)

    def told(
        self,
        pose: Sequence[float] | np.ndarray,
        age: float,
        moved: Motion | None = None,
        feet: np.ndarray | None = None,
    ) -> np.ndarray:
        """x, y, z (m) and heading (rad) now, `[4]`, from the newest `pose` `[4]`, which was true `age` s ago.

        Where the robot knows them, also from how it has `moved` since the last call and the `feet` that stand
        (`MapMatch.see`).

        A pose that is not finite is handed on as it is, and so is one that cannot be, until they have come in a row.
        """
        x, y, z, yaw = (float(value) for value in pose)
        given = (x, y, z, yaw)
        if not all(map(math.isfinite, given)) or not math.isfinite(age):
            return np.array(given)
        if self._place is None:
            self._place, self._seen, self._since = given, given, 0.0
            return np.array(given)
        self._felt(moved)
        self._since += self.period
        if given != self._seen:
            strange = self._learn(given, max(age, 0.0))
            self._seen = given
            if strange:
                return np.array(given)
        place = np.array(self._place)
        if self.match:
            if feet is not None:
                self.match.see(place, feet)
            place[:3] -= self.match.offset
        return place

    def asked(self, velocity: Sequence[float] | np.ndarray) -> None:
        """What the robot is asked for in the coming period: forward, left (m/s) and yaw rate (rad/s)."""
        forward, left, around = self._walker.step(velocity).tolist()
        if self._place is not None:
            model = Motion(forward, left, 0.0, around)
            self._past.append((model, self._place))
            self._place = self._step(self._place, model, self.period)

    def _felt(self, moved: Motion | None) -> None:
        """Puts the robot's own motion in the place of the model's in the period that has passed."""
        self._reckoned = moved is not None and all(map(math.isfinite, moved))
        if moved is None or not self._reckoned:
            return
        self._off = [0.0, 0.0, 0.0, 0.0]
        if self._past:
            start = self._past[-1][1]
            self._past[-1] = (moved, start)
            self._place = self._step(start, moved, self.period)

    def _learn(self, given: Place, age: float) -> bool:
        """Takes a new pose up; whether it cannot be."""
        assert self._place is not None
        steps = min(age / self.period, float(len(self._past)))
        whole, rest = int(steps), steps - int(steps)
        at = self._place if whole == 0 else self._past[-whole][1]
        if rest > 1e-6 and whole < len(self._past):
            x, y, z, yaw = (a + rest * (b - a) for a, b in zip(at, self._past[-whole - 1][1], strict=True))
            at = (x, y, z, yaw)
        innovation = [g - a for g, a in zip(given, at, strict=True)]
        innovation[3] = (innovation[3] + math.pi) % (2 * math.pi) - math.pi
        if math.hypot(innovation[0], innovation[1]) > self.tuning.jump:
            self._strange += 1
            if self._strange >= self.tuning.agreed:
                self.reset()
                self._place = given
            return True
        self._strange = 0
        period, self._since = max(self._since, self.period), 0.0
        gains = [axis.gains(period, i, self._reckoned) for axis, i in zip(self._axes, innovation, strict=True)]
        c, s = math.cos(at[3]), math.sin(at[3])
        faster = [0.0 if self._reckoned else beta * i for (_, beta), i in zip(gains, innovation, strict=True)]
        self._off[0] += c * faster[0] + s * faster[1]
        self._off[1] += c * faster[1] - s * faster[0]
        self._off[2] += faster[2]
        self._off[3] += faster[3]
        x, y, z, yaw = (a + alpha * i for a, (alpha, _), i in zip(at, gains, innovation, strict=True))
        self._replay((x, y, z, yaw), whole, rest)
        return False

    def _replay(self, here: Place, whole: int, rest: float) -> None:
        """Moves on from a place `whole` + `rest` periods ago with the offsets known now."""
        first = len(self._past) - whole
        if rest > 1e-6 and first > 0:
            here = self._step(here, self._past[first - 1][0], rest * self.period)
        for k in range(first, len(self._past)):
            motion = self._past[k][0]
            self._past[k] = (motion, here)
            here = self._step(here, motion, self.period)
        self._place = here

    def _step(self, place: Place, motion: Motion, seconds: float) -> Place:
        x, y, z, yaw = place
        ahead, left, up, around = (m + off for m, off in zip(motion, self._off, strict=True))
        middle = yaw + around * seconds / 2
        c, s = math.cos(middle), math.sin(middle)
        x, y = x + seconds * (c * ahead - s * left), y + seconds * (s * ahead + c * left)
        return x, y, z + seconds * up, yaw + around * seconds
