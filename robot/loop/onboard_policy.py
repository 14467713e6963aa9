"""The policy on the robot: from a snapshot and a command to joint targets, with the bundle's own observation code."""

from dataclasses import replace

import numpy as np

from policies.skills.library import Skills
from policies.skills.runner import PolicyRunner, Runner
from robot.loop.terrain import TerrainHeights
from robot.loop.transport import Array, Snapshot
from sim.course.description import SKILLS
from sim.errors import InputError
from sim.observation import COMMANDS, Layout, Sensors

WARM_UP_STEPS = 20
"""Control steps that are computed before arming: the first ones are slower."""


class OnboardPolicy:
    """A generalist, or specialists that hand over to each other, for one robot.

    Raises:
      InputError: a policy with a preview.
    """

    def __init__(self, skills: Skills, terrain: TerrainHeights) -> None:
        ahead = [str(bundle.path) for bundle in skills.bundles if bundle.layout.preview.seconds]
        if ahead:
            raise InputError(f"{ahead[0]} sees motion ahead, which no message tells a robot: it runs in simulation")
        self.skills, self.terrain = skills, terrain
        self.robot = skills.robot
        self.command_ranges: dict[str, list[float]] = self._ranges()
        self.reset()

    def reset(self) -> None:
        """Forgets the past: the next step begins a run."""
        self._policy: Runner = PolicyRunner(self.skills, 1, fixed=False)

    def warm_up(self) -> None:
        """Computes a few steps for nothing, then forgets them."""
        self.reset()
        still = Snapshot.blank(self.robot.joints)
        still.position = np.array(self.robot.default_pose, float)
        for _ in range(WARM_UP_STEPS):
            for skill in range(len(SKILLS)):
                self.targets(replace(still, skill=skill), np.zeros(3), 0, False)
        self.reset()

    def targets(self, snapshot: Snapshot, command: Array, now: int, pose_known: bool) -> Array:
        """Joint targets, rad float32 `[J]`, for `command` `[3]`; on flat ground where the pose is not known.

        Raises:
          InputError: an input is not finite.
        """
        sensors = Sensors(
            *(
                np.asarray(values, np.float32)[None]
                for values in (
                    snapshot.orientation, snapshot.angular_velocity, snapshot.position, snapshot.velocity
                )
            )
        )  # fmt: skip
        user = np.array([self.skills.uses[SKILLS[snapshot.skill]]])

        def heights(layout: Layout) -> Array:
            return self.terrain.heights(layout, snapshot, now, pose_known)

        return self._policy.step(sensors, np.asarray(command, np.float32)[None], user, heights)[0]

    def _ranges(self) -> dict[str, list[float]]:
        """The widest range of each command over the bundles."""
        every = [bundle.metadata.command_ranges for bundle in self.skills.bundles]
        return {name: [min(r[name][0] for r in every), max(r[name][1] for r in every)] for name in COMMANDS}
