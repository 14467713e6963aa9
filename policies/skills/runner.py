"""Which policy bundle does what: the skills behind `--policy`, and robots that change between them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from policies.bundle.reader import Bundle, FixedBatch, Policy
from policies.bundle.shipped import bundle_file
from policies.navigation.navigator import Limits
from policies.navigation.planner import Envelope
from policies.navigation.route import WEAK, WEAK_TORQUE, Paces
from sim import gait as clocks
from sim import observation as obs
from sim.course.description import SKILLS
from sim.errors import InputError
from sim.robots.description import Robot

PLANNED = 0.95
"""Share of a trained command range that a route plans with; the rest is for corrections."""


@dataclass(frozen=True, eq=False)
class Skills:
    """The bundles behind a `--policy` and which of them serves each skill."""

    policy: str
    bundles: tuple[Bundle, ...]
    uses: dict[str, int]
    """Skill -> index into `bundles`, for every skill of `sim.course.description.SKILLS`."""
    able: tuple[str, ...]
    """Skills that were really trained; the route leaves out what is not among them."""

    @property
    def robot(self) -> Robot:
        """The robot that all bundles agree on."""
        return self.bundles[0].robot

    def describe(self) -> dict[str, str]:
        """Skill -> what runs it, in words."""
        words = {}
        for skill in SKILLS:
            file = str(self.bundles[self.uses[skill]].path)
            words[skill] = file if skill in self.able else f"no trained policy: {file} takes over"
        return words


def load_skills(policy: str = "specialists") -> Skills:
    """Bundles for `specialists`, `generalist` or a FILE.onnx (which then does everything).

    Raises:
      InputError: unknown name, nothing shipped under it, or a file that is no bundle.
    """
    uses: dict[str, int] = dict.fromkeys(SKILLS, 0)
    if policy == "specialists":
        able = SKILLS
        for skill in SKILLS:
            if not bundle_file(skill).is_file():
                raise InputError(
                    f"the skill '{skill}' has no bundle: {bundle_file(skill)} is missing; train and export it, or give "
                    "--policy FILE.onnx to run the course with one bundle"
                )
        bundles = tuple(Bundle.load(bundle_file(skill)) for skill in able)
        uses |= {skill: index for index, skill in enumerate(able)}
    else:
        bundles = (Bundle.load(_single(policy)),)
        skill = bundles[0].metadata.skill
        able = tuple(s for s in SKILLS if s in ("walk", skill)) if skill in SKILLS else SKILLS
    for bundle in bundles[1:]:
        if bundle.metadata.robot != bundles[0].metadata.robot:
            raise InputError(f"{bundle.path} is for the robot {bundle.metadata.robot}, not {bundles[0].metadata.robot}")
    return Skills(policy, bundles, uses, able)


def _single(policy: str) -> Path:
    """The one bundle file behind `generalist` or a path."""
    if policy == "generalist":
        if not bundle_file(policy).is_file():
            raise InputError(
                f"the generalist's bundle is missing: {bundle_file(policy)}; use --policy specialists or a FILE.onnx"
            )
        return bundle_file(policy)
    if not policy.endswith(".onnx") and not Path(policy).is_file():
        raise InputError(f"unknown policy '{policy}': known are specialists, generalist or a FILE.onnx")
    return Path(policy)


def trained_limits(skills: Skills, limits: Limits = Limits()) -> Limits:
    """`limits` narrowed to the commands that the walker was trained on."""
    ranges = skills.bundles[skills.uses["walk"]].metadata.command_ranges
    narrowed = {}
    for name in ("forward", "sideways", "yaw"):
        low, high = getattr(limits, name)
        trained_low, trained_high = ranges.get(name, (low, high))
        narrowed[name] = (max(low, trained_low), min(high, trained_high))
    return replace(limits, **narrowed)


def paces_of(skills: Skills, torque_limit: float | None = None) -> Paces:
    """How fast the route may be with these skills: `Paces`, or `WEAK` where the motors are weak (`torque_limit`, N m;
    the robot's own without it), narrowed to what their bundles were trained on."""
    paces = WEAK if (torque_limit or skills.robot.torque_limit) < WEAK_TORQUE else Paces()
    ranges = {skill: skills.bundles[skills.uses[skill]].metadata.command_ranges for skill in SKILLS}
    return replace(
        paces,
        walker=_trained(paces.walker, ranges["walk"]),
        late=_trained(paces.late, ranges["walk"]),
        climb=min(paces.climb, ranges["climb"]["forward"][1]),
        jump=min(paces.jump, ranges["jump"]["forward"][1]),
    )


def _trained(envelope: Envelope, ranges: Mapping[str, Sequence[float]]) -> Envelope:
    """An envelope with as much of the walker's command ranges as a plan may use."""
    back, ahead = envelope.forward
    return replace(
        envelope,
        forward=(max(back, PLANNED * ranges["forward"][0]), min(ahead, PLANNED * ranges["forward"][1])),
        sideways=min(envelope.sideways, PLANNED * ranges["sideways"][1]),
        yaw=min(envelope.yaw, PLANNED * ranges["yaw"][1]),
    )


class SkillPolicy:
    """Several bundles over the same robots: each robot is driven by the bundle of its present skill.

    The memory (history, last action, clock phase) is shared. Where the skill changes, the difference between the old
    and the new joint targets fades out over `HANDOVER` control steps, so that the joints are not jerked.
    """

    HANDOVER = 6
    LANDED = (0.85, 0.2)
    """Phase of the bound's clock from which, and share of the cycle for which, a jumper may be taken over. Measured at
    1.6 m/s behind the board: 1 in 8 fall within 1.6 s where it changes then, 1 in 2 at phases of 0.3 to 0.6."""

    SET = 6
    """Control steps in which a jumper that takes over sets the clock for the board ahead."""
    HALF_BOARD, BEHIND = 0.25, 0.32
    """Half the length of a board that reaches out of view, m, and how far a robot that comes at a walk falls behind the
    command until it runs, m."""

    def __init__(self, skills: Skills, worlds: int, fixed: bool = True) -> None:
        """`fixed` runs networks on batches of one size (`FixedBatch`); without it as many rows as there are robots."""
        self.skills = skills
        self.policies = [
            Policy(FixedBatch(bundle) if fixed else bundle, worlds)  # type: ignore[arg-type]
            for bundle in skills.bundles
        ]
        self.users = np.full(worlds, -1)
        """Who drove each robot in the last step; -1 before the first."""
        self.targets = np.zeros((worlds, 12), np.float32)
        self.gap = np.zeros((worlds, 12), np.float32)
        """Old less new joint targets at the last change, rad."""
        self.age = np.full(worlds, self.HANDOVER)
        """Control steps since that change."""
        self.setting = np.zeros(worlds, np.int64)
        """Control steps for which each robot's clock is still being set for a board."""
        self.due = np.zeros(worlds, np.float32)
        """Phase in which the next step should find such a clock."""
        self.slip = np.zeros(worlds, np.float32)
        """Cycles that the clock is to make up in the next step beyond its own frequency."""
        self.changed = np.zeros(worlds, bool)
        """Robots whose skill changed in the last step."""
        self.jumps = np.zeros((worlds, 2), np.float32)
        """Largest change of a joint target in the step of the last change, rad: as handed over, and without fading."""

    def step(
        self,
        sensors: obs.Sensors,
        command: np.ndarray,
        users: np.ndarray,
        heights: Callable[[obs.Layout], np.ndarray],
        phase: np.ndarray | None = None,
    ) -> np.ndarray:
        """Joint targets, rad `[worlds, 12]`.

        `users` `[worlds]` are indices of bundles, `heights(layout)` gives the terrain input of a layout `[worlds, n]`,
        `phase` `[worlds]` is the clock's where another policy turns it.
        """
        users = self._landed(users)
        jumper = self.policies[self.skills.uses["jump"]]
        if phase is None and self.slip.any():
            jumper.phase = ((jumper.phase + self.slip) % 1.0).astype(np.float32)
        targets = np.zeros((len(users), 12), np.float32)
        active = np.unique(users)
        for index in active:
            policy = self.policies[index]
            mine = users == index
            targets[mine] = policy.step(sensors, command, heights(policy.bundle.layout), phase)[mine]
        if len(self.policies) > 1:
            self._share(active, users)
        targets = self._handed_over(targets, users)
        self._set_clock(users, command, heights)
        return targets

    def _landed(self, users: np.ndarray) -> np.ndarray:
        """`users` `[worlds]`, save that a jumper goes on until it has landed: one taken over in flight rolls over."""
        jumper = self.skills.uses["jump"]
        phase = np.asarray(self.policies[jumper].phase)
        begin, length = self.LANDED
        flying = (phase - begin) % 1.0 > length
        return np.where((self.users == jumper) & (users != jumper) & flying, jumper, users)

    def _set_clock(self, users: np.ndarray, command: np.ndarray, heights: Callable[[obs.Layout], np.ndarray]) -> None:
        """Brings the clock of robots that a jumper has just taken over into the phase that the board ahead asks for.

        A walker hands the clock over in any phase. Left to the bound's own lock (`sim.gait.stride_lock`, 30 % faster or
        slower), robots whose clock was half a cycle off stumbled in 4 of 5 runs, and set later they stumble as well.
        """
        jump = self.skills.uses["jump"]
        jumper = self.policies[jump]
        gait, layout = jumper.bundle.gait, jumper.bundle.layout
        phase = np.asarray(jumper.phase)
        taken = self.changed & (users == jump)
        if gait.lock_gain and taken.any():
            board = obs.board_ahead(np, layout, heights(layout), self.HALF_BOARD) + self.BEHIND
            even = clocks.frequency(np, gait, phase, command)
            speed = np.hypot(command[:, 0], command[:, 1])
            late = clocks.stride_error(np, gait, phase, even, speed, board)
            self.due = np.where(taken, phase + late, self.due)
            self.setting = np.where(taken & np.isfinite(board), self.SET, self.setting)
        going = (self.setting > 0) & (users == jump)
        if not going.any():
            self.slip[:], self.setting[:] = 0.0, 0
            return
        gap = clocks.shorter_way(self.due - phase)
        self.slip = np.where(going, gap / np.maximum(self.setting, 1), 0.0).astype(np.float32)
        self.setting = np.where(going, self.setting - 1, 0)
        self.due = ((self.due + jumper.frequency * self.skills.robot.control_period) % 1.0).astype(np.float32)

    @property
    def frequency(self) -> np.ndarray:
        """How fast each robot's clock turns after the last step, Hz `[worlds]`."""
        own = np.select([self.users == i for i in range(len(self.policies))], [p.frequency for p in self.policies])
        return own + self.slip / self.skills.robot.control_period

    def adopt(self, targets: np.ndarray) -> None:
        """Joint targets `[worlds, 12]` (rad) were applied in place of the last step's: the memory goes on from them, as
        if the present skill had asked for the difference itself."""
        robot = self.skills.robot
        difference = (targets - self.targets) / robot.action_scale
        active = np.unique(self.users)
        for index in active:
            policy = self.policies[index]
            policy.last_action = np.clip(policy.last_action + difference, -robot.action_limit, robot.action_limit)
        if len(self.policies) > 1:
            self._share(active, self.users)
        self.targets = np.array(targets, np.float32)

    def _handed_over(self, targets: np.ndarray, users: np.ndarray) -> np.ndarray:
        changed = (users != self.users) & (self.users >= 0)
        before = self.targets
        self.gap[changed] = (before - targets)[changed]
        self.age = np.where(changed, 0, self.age + 1)
        fading = np.clip(1 - (self.age + 1) / (self.HANDOVER + 1), 0.0, 1.0).astype(np.float32)
        robot = self.skills.robot
        blended = np.clip(targets + fading[:, None] * self.gap, robot.joint_lower, robot.joint_upper)
        self.targets, self.users = blended, np.array(users)
        jumps = np.stack([np.abs(after - before).max(1) for after in (self.targets, targets)], 1)
        self.changed, self.jumps = changed, np.where(changed[:, None], jumps, self.jumps)
        return self.targets

    def _share(self, active: np.ndarray, users: np.ndarray) -> None:
        names = ("history", "last_action", "phase", "fresh")
        kept = {(i, n): np.array(getattr(self.policies[i], n)) for i in active for n in names}
        for policy in self.policies:
            for name in names:
                values = np.array(getattr(policy, name))
                for i in active:
                    values[users == i] = kept[i, name][users == i]
                setattr(policy, name, values)
