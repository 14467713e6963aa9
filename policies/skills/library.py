"""Which policy bundle does what: the skills behind `--policy`, and what they were trained to do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from policies.bundle.reader import Bundle
from policies.bundle.shipped import bundle_file
from policies.navigation.paces import WEAK, WEAK_SHARE, Paces
from policies.navigation.path import MotionLimits
from policies.navigation.problem import Envelope
from policies.navigation.response import Response, response_beside
from sim import strict_yaml
from sim.course.description import SKILLS
from sim.errors import InputError
from sim.observation import COMMANDS
from sim.robots.description import DEFAULT, Robot, default_robot, find_robot

NAMED = ("specialists", "generalist")
"""Policies that are a robot's own bundles; every other one is a file."""
PLANNED = 0.95
"""Share of a trained command range that a route plans with; the rest is for corrections."""
PACES_SUFFIX = ".paces.yaml"
"""Ending of the file beside a walker's bundle that says what its routes do faster or slower than `Paces`."""
FASTEST = 100.0
"""No pace is as large, m/s, m/s^2 and rad/s."""


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


def load_skills(policy: str = "specialists", robot: str | None = None) -> Skills:
    """Bundles for `specialists`, `generalist` or a FILE.onnx (which then does everything).

    `robot` is the name or folder of the robot whose bundles are meant, the default robot without it; a FILE.onnx must
    be for it where it is given. The default robot has every skill; another one has those that were trained for it, its
    walker at least.

    Raises:
      InputError: unknown name, nothing there under it, a file that is no bundle or another robot's, or one that cannot
        stand and has no other beside it.
    """
    uses: dict[str, int] = dict.fromkeys(SKILLS, 0)
    meant = default_robot() if robot is None else find_robot(robot)
    if policy == "specialists":
        files = {skill: bundle_file(skill, meant.name) for skill in SKILLS}
        for skill in SKILLS if meant.name == DEFAULT else ("walk",):
            if not files[skill].is_file():
                raise InputError(
                    f"the skill '{skill}' has no bundle for {meant.name}: {files[skill]} is missing; train and export "
                    "it, or give --policy FILE.onnx to run the course with one bundle"
                )
        able = tuple(skill for skill in SKILLS if files[skill].is_file())
        bundles = tuple(Bundle.load(files[skill]) for skill in able)
        uses |= {skill: index for index, skill in enumerate(able)}
    else:
        bundles = (Bundle.load(_single(policy, meant.name)),)
        skill = bundles[0].metadata.skill
        low, high = bundles[0].metadata.command_ranges["forward"]
        if not low <= 0 <= high:  # a command of zero would become one of these speeds
            raise InputError(
                f"{bundles[0].path} cannot drive a robot alone: its commands are {low:g} to {high:g} m/s ahead, so it "
                "cannot stand; --policy specialists takes it for what it can"
            )
        able = tuple(s for s in SKILLS if s in ("walk", skill)) if skill in SKILLS else SKILLS
    for bundle in bundles if robot is not None or policy in NAMED else ():
        if bundle.metadata.robot != meant.name:
            raise InputError(f"{bundle.path} is for the robot {bundle.metadata.robot}, not {meant.name}")
    return Skills(policy, bundles, uses, able)


def _single(policy: str, robot: str) -> Path:
    """The one bundle file behind a robot's `generalist` or a path."""
    if policy == "generalist":
        file = bundle_file(policy, robot)
        if not file.is_file():
            raise InputError(f"{robot} has no generalist: {file} is missing; use --policy specialists or a FILE.onnx")
        return file
    if not policy.endswith(".onnx") and not Path(policy).is_file():
        raise InputError(f"unknown policy '{policy}': known are specialists, generalist or a FILE.onnx")
    return Path(policy)


def trained_limits(skills: Skills, limits: MotionLimits = MotionLimits()) -> MotionLimits:
    """`limits` (`Paces.limits`) narrowed to the commands that the walker was trained on."""
    ranges = skills.bundles[skills.uses["walk"]].metadata.command_ranges
    narrowed = {}
    for name in COMMANDS:
        low, high = getattr(limits, name)
        trained_low, trained_high = ranges.get(name, (low, high))
        narrowed[name] = (max(low, trained_low), min(high, trained_high))
    return replace(limits, **narrowed)


def response_of(skills: Skills) -> Response:
    """How the walker answers its commands: the table beside its bundle, an ordinary walker's where there is none.

    Raises:
      InputError: the file there is no such table, or of another control period.
    """
    walker = skills.bundles[skills.uses["walk"]]
    response = response_beside(Path(walker.path), skills.robot.control_period)
    if abs(response.period - skills.robot.control_period) > 1e-9:
        raise InputError(f"the response beside {walker.path} is for steps of {response.period:g} s")
    return response


def weak(skills: Skills, torque_limit: float | None) -> bool:
    """Whether motors of `torque_limit` (N m; the robot's own without it) are much weaker than the robot's."""
    return (torque_limit or skills.robot.peak_torque) / skills.robot.peak_torque < WEAK_SHARE


def paces_of(skills: Skills, torque_limit: float | None = None) -> Paces:
    """How fast the route may be with these skills: `WEAK` where the motors are weak (`torque_limit`, N m; the robot's
    own without it), else `Paces`, each as the file beside the walker's bundle changes it; narrowed to what their
    bundles were trained on.

    Raises:
      InputError: that file holds something else.
    """
    own = Path(skills.bundles[skills.uses["walk"]].path).with_suffix(PACES_SUFFIX)
    feeble = weak(skills, torque_limit)
    paces = read_paces(own, feeble) if own.is_file() else WEAK if feeble else Paces()
    ranges = {skill: skills.bundles[skills.uses[skill]].metadata.command_ranges for skill in SKILLS}
    return replace(
        paces,
        walker=_trained(paces.walker, ranges["walk"]),
        turn=_trained(paces.turn, ranges["walk"]),
        late=_trained(paces.late, ranges["walk"]),
        climb=min(paces.climb, ranges["climb"]["forward"][1]),
        jump=min(paces.jump, ranges["jump"]["forward"][1]),
        jump_to_table=min(paces.jump_to_table, ranges["jump"]["forward"][1]),
    )


def read_paces(file: Path, weak: bool = False) -> Paces:
    """`Paces` with what a YAML file says of them: fields by name, those of an envelope below its name; with `weak`
    motors `WEAK` with what the file says below that name.

    Raises:
      InputError: it is no such file, or names what there is not, or something that is no speed.
    """
    try:
        said = strict_yaml.read(file)
        feeble = said.pop("weak", {}) if isinstance(said, dict) else {}
        return (_changed(Paces(), said), _changed(WEAK, feeble))[weak]
    except (ValueError, TypeError) as error:
        raise InputError(f"{file} holds no paces: {error}") from error


def _changed(what: Any, changes: Any) -> Any:
    """A dataclass of numbers above 0, pairs of numbers and such dataclasses, with some of them changed."""
    if not isinstance(changes, dict):
        raise TypeError(f"expected fields of {type(what).__name__}")
    found = {}
    for name, value in changes.items():
        if name not in (field.name for field in fields(what)):
            raise ValueError(f"there is no '{name}' in {type(what).__name__}")
        before = getattr(what, name)
        if is_dataclass(before):
            found[name] = _changed(before, value)
            continue
        several = isinstance(before, tuple)
        numbers = value if several and isinstance(value, list) else [value]
        sound = all(type(n) in (int, float) and math.isfinite(n) and abs(n) < FASTEST for n in numbers)
        if not sound or len(numbers) != (len(before) if several else 1):
            raise ValueError(f"'{name}' must be {'two numbers' if several else 'a number'} below {FASTEST:g}")
        if not (numbers[0] < 0 < numbers[-1] if several else numbers[0] > 0):
            raise ValueError(f"'{name}' must be {'below and above 0' if several else 'more than 0'}")
        found[name] = tuple(map(float, numbers)) if several else float(numbers[0])
    return replace(what, **found)


def _trained(envelope: Envelope, ranges: Mapping[str, Sequence[float]]) -> Envelope:
    """An envelope with as much of the walker's command ranges as a plan may use."""
    back, ahead = envelope.forward
    return replace(
        envelope,
        forward=(max(back, PLANNED * ranges["forward"][0]), min(ahead, PLANNED * ranges["forward"][1])),
        sideways=min(envelope.sideways, PLANNED * ranges["sideways"][1]),
        yaw=min(envelope.yaw, PLANNED * ranges["yaw"][1]),
    )
