"""How one skill's joint targets turn into the next one's."""

import numpy as np

from sim.handover import FADE, faded
from sim.robots.description import Robot


class Handover:
    """Fades out the step in the joint targets where another skill takes over, for `worlds` robots at once.

    What the old skill's last targets differ from the new skill's first is added to the new ones with a weight that
    falls to 0 within `sim.handover.FADE` control steps, so that the joints are not jerked.
    """

    def __init__(self, robot: Robot, worlds: int) -> None:
        self.robot = robot
        joints = len(robot.joint_names)
        self.targets = np.zeros((worlds, joints), np.float32)
        """Joint targets of the last step, as handed over, rad."""
        self.gap = np.zeros((worlds, joints), np.float32)
        """Old less new joint targets at the last change, rad."""
        self.age = np.full(worlds, FADE)
        """Control steps since that change."""
        self.jumps = np.zeros((worlds, 2), np.float32)
        """Largest change of a joint target in the step of the last change, rad: as handed over, and without fading."""

    def blend(self, targets: np.ndarray, changed: np.ndarray) -> np.ndarray:
        """Joint targets to apply, rad `[worlds, joints]`, within the joints' ranges.

        `targets` `[worlds, joints]` are what the present skills ask for; `changed` `[worlds]` says where the skill is
        another than in the last step.
        """
        before = self.targets
        self.gap[changed] = (before - targets)[changed]
        self.age = np.where(changed, 0, self.age + 1)
        self.targets = faded(np, self.robot, targets, self.gap, self.age)
        jumps = np.stack([np.abs(after - before).max(1) for after in (self.targets, targets)], 1)
        self.jumps = np.where(changed[:, None], jumps, self.jumps)
        return self.targets
