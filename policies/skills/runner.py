"""Robots that change between policy bundles: each is driven by the bundle of its present skill."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from policies.bundle.reader import FixedBatch, Policy
from policies.skills.clock import BoardClock, has_landed
from policies.skills.handover import Handover
from policies.skills.library import Skills
from sim import observation as obs


class Runner(Protocol):
    """What drives the robots of a run: `PolicyRunner`, or something that stands in for it."""

    @property
    def users(self) -> np.ndarray:
        """Index of the bundle that drove each robot in the last step, int `[worlds]`; -1 before the first."""
        ...

    @property
    def changed(self) -> np.ndarray:
        """Robots that another bundle drove in the last step than in the one before, bool `[worlds]`."""
        ...

    @property
    def jumps(self) -> np.ndarray:
        """Largest change of a joint target in the step of the last change, rad `[worlds, 2]`: as handed over, and
        without fading."""
        ...

    def step(
        self, sensors: obs.Sensors, command: np.ndarray, users: np.ndarray, heights: Callable[[obs.Layout], np.ndarray],
        preview: Callable[[obs.Preview], np.ndarray] | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Joint targets, rad float32 `[worlds, joints]`, for one control step.

        `command` `[worlds, 3]` is in m/s, m/s, rad/s, `users` `[worlds]` are indices of the bundles that should drive,
        `heights(layout)` gives the terrain input of a layout `[worlds, n]`, `preview(layout.preview)` what is asked
        for next, `[worlds, moments, 3]` (None: the command lasts).

        Raises:
          InputError: an input is not finite.
        """
        ...


class PolicyRunner:
    """Several bundles over the same robots, which share one memory (history, last action, clock phase).

    A jumper goes on until its bound has landed and sets the clock when it takes over (`policies.skills.clock`); joint
    targets fade from one bundle's to the next one's (`policies.skills.handover`).
    """

    def __init__(self, skills: Skills, worlds: int, fixed: bool = True) -> None:
        """`fixed` runs networks on batches of one size (`FixedBatch`); without it as many rows as there are robots."""
        self.skills = skills
        self.policies = [
            Policy(FixedBatch(bundle) if fixed else bundle, worlds)  # type: ignore[arg-type]
            for bundle in skills.bundles
        ]
        self.users = np.full(worlds, -1)
        """Who drove each robot in the last step; -1 before the first."""
        self.changed = np.zeros(worlds, bool)
        """Robots whose skill changed in the last step."""
        self.handover = Handover(skills.robot, worlds)
        self.clock = BoardClock(worlds)

    @property
    def jumps(self) -> np.ndarray:
        """See `policies.skills.handover.Handover.jumps`."""
        return self.handover.jumps

    def step(
        self,
        sensors: obs.Sensors,
        command: np.ndarray,
        users: np.ndarray,
        heights: Callable[[obs.Layout], np.ndarray],
        preview: Callable[[obs.Preview], np.ndarray] | None = None,
        phase: np.ndarray | None = None,
    ) -> np.ndarray:
        """See `Runner.step`; `phase` `[worlds]` is the clock's where another policy turns it."""
        jump = self.skills.uses["jump"]
        jumper = self.policies[jump]
        landed = has_landed(np.asarray(jumper.phase))  # the phase of the last step: before the clock is turned on
        users = np.where((self.users == jump) & (users != jump) & ~landed, jump, users)
        if phase is None:
            jumper.phase = self.clock.turn(jumper.phase)
        targets = np.zeros_like(self.handover.targets)
        active = np.unique(users)
        for index in active:
            policy = self.policies[index]
            mine = users == index
            layout = policy.bundle.layout
            seen = preview(layout.preview) if preview and layout.preview.seconds else None
            targets[mine] = policy.step(sensors, command, heights(layout), phase, seen)[mine]
        if len(self.policies) > 1:
            self._share(active, users)
        self.changed = (users != self.users) & (self.users >= 0)
        self.users = np.array(users)
        blended = self._applied(self.handover.blend(targets, self.changed))
        self.clock.set(jumper, users == jump, self.changed & (users == jump), command, heights)
        return blended

    @property
    def frequency(self) -> np.ndarray:
        """How fast each robot's clock turns after the last step, Hz `[worlds]`."""
        own = np.select([self.users == i for i in range(len(self.policies))], [p.frequency for p in self.policies])
        return own + self.clock.slip / self.skills.robot.control_period

    def adopt(self, targets: np.ndarray) -> None:
        """Joint targets `[worlds, joints]` (rad) were applied in place of the last step's: the memory goes on from
        them, as if the present skill had asked for the difference itself."""
        robot = self.skills.robot
        difference = targets - self.handover.targets
        active = np.unique(self.users)
        for index in active:
            policy = self.policies[index]
            asked = policy.last_action + difference / obs.action_scale(robot, policy.bundle.gait)
            policy.last_action = np.clip(asked, -robot.action_limit, robot.action_limit)
        if len(self.policies) > 1:
            self._share(active, self.users)
        self.handover.targets = self._applied(np.array(targets, np.float32))

    def _applied(self, targets: np.ndarray) -> np.ndarray:
        """Joint targets that every policy's next ones begin from, whichever asked for them."""
        for policy in self.policies:
            policy.targets = targets
        return targets

    def _share(self, active: np.ndarray, users: np.ndarray) -> None:
        names = ("history", "last_action", "phase", "fresh")
        kept = {(i, n): np.array(getattr(self.policies[i], n)) for i in active for n in names}
        for policy in self.policies:
            for name in names:
                values = np.array(getattr(policy, name))
                for i in active:
                    values[users == i] = kept[i, name][users == i]
                setattr(policy, name, values)
