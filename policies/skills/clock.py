"""The jumper's clock where skills change: it is set for the board ahead, and it says when a bound has landed."""

from collections.abc import Callable

import numpy as np

from policies.bundle.reader import Policy
from sim import gait as clocks
from sim import observation as obs
from sim.handover import SET, clock_lag

LANDED = (0.85, 0.2)
"""Phase of the bound's clock from which, and share of the cycle for which, a jumper may be taken over. Measured at
1.6 m/s behind the board: 1 in 8 fall within 1.6 s where it changes then, 1 in 2 at phases of 0.3 to 0.6."""


def has_landed(phase: np.ndarray) -> np.ndarray:
    """Whether a bound in `phase` (cycles, `[worlds]`) has all feet down, bool `[worlds]`: one that is taken over in
    flight rolls over."""
    begin, length = LANDED
    return (phase - begin) % 1.0 <= length


class BoardClock:
    """Brings the clock of robots that a jumper has just taken over into the phase that the board ahead asks for.

    A walker hands the clock over in any phase. Left to the bound's own lock (`sim.gait.stride_lock`, 30 % faster or
    slower), robots whose clock was half a cycle off stumbled in 4 of 5 runs, and set later they stumble as well.
    """

    def __init__(self, worlds: int) -> None:
        self.setting = np.zeros(worlds, np.int64)
        """Control steps for which each robot's clock is still being set."""
        self.due = np.zeros(worlds, np.float32)
        """Phase in which the next step should find such a clock, cycles."""
        self.slip = np.zeros(worlds, np.float32)
        """Cycles that the clock is to make up in the next step beyond its own frequency."""

    def turn(self, phase: np.ndarray) -> np.ndarray:
        """`phase` `[worlds]` (cycles) turned by what is to be made up."""
        if not self.slip.any():
            return phase
        return ((phase + self.slip) % 1.0).astype(np.float32)

    def set(
        self,
        jumper: Policy,
        drives: np.ndarray,
        taken: np.ndarray,
        command: np.ndarray,
        heights: Callable[[obs.Layout], np.ndarray],
    ) -> None:
        """Finds out, after a step, what the clocks are to make up in the next one.

        The jumper `drives` some robots (bool `[worlds]`) and has `taken` some of them over in this step; `command`
        `[worlds, 3]` and `heights` are the step's.
        """
        gait, layout = jumper.bundle.gait, jumper.bundle.layout
        phase = np.asarray(jumper.phase)
        if gait.lock_gain and taken.any():
            late, seen = clock_lag(np, gait, layout, heights(layout), phase, command)
            self.due = np.where(taken, phase + late, self.due)
            self.setting = np.where(taken & seen, SET, self.setting)
        going = (self.setting > 0) & drives
        if not going.any():
            self.slip[:], self.setting[:] = 0.0, 0
            return
        gap = clocks.shorter_way(self.due - phase)
        self.slip = np.where(going, gap / np.maximum(self.setting, 1), 0.0).astype(np.float32)
        self.setting = np.where(going, self.setting - 1, 0)
        self.due = ((self.due + jumper.frequency * jumper.bundle.robot.control_period) % 1.0).astype(np.float32)
