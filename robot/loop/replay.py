"""Feeds a recording through the control loop again and compares what comes out, step by step."""

import hashlib
import sys
from dataclasses import asdict
from typing import Any, cast

import numpy as np

from policies.skills.library import NAMED, Skills, load_skills
from robot.loop import parameters
from robot.loop.controller import Controller, Times
from robot.loop.message_filter import MessageFilter
from robot.loop.onboard_policy import OnboardPolicy
from robot.loop.recording import REQUESTS, Recording, read, snapshot_of
from robot.loop.safety import Limits
from robot.loop.terrain import GridPlace, TerrainHeights
from robot.loop.transport import NS, Array, Mode, Output, Request, Snapshot, State
from robot.options import ReplayOptions
from robot.results import Replay
from sim.course import files as course_file
from sim.course.description import Course
from sim.errors import InputError
from sim.results import printable

TOLERANCE = 1e-4
"""Joint targets may differ by this between two computers, rad: networks round differently."""
SCHEMA = 1


def sha256(skills: Skills) -> dict[str, str]:
    """File name -> SHA-256 of each bundle behind some skills.

    Raises:
      InputError: a file cannot be read.
    """
    try:
        return {bundle.path.name: hashlib.sha256(bundle.path.read_bytes()).hexdigest() for bundle in skills.bundles}
    except OSError as error:
        raise InputError(f"cannot read a bundle again: {error.strerror}") from error


def header(
    skills: Skills,
    bundles: dict[str, str],
    course: Course | None,
    limits: Limits,
    times: Times,
    grid: GridPlace,
    *,
    needs_pose: bool,
) -> dict[str, Any]:
    """What a recording says about its run: everything that decides what the loop does with its inputs.

    `bundles` are what `sha256` says of the skills.
    """
    return {
        "schema": SCHEMA, "policy": skills.policy, "bundles": bundles, "robot": skills.robot.name,
        "joints": list(skills.robot.joint_names),
        "course": None if course is None else course_file.dumps(course), "limits": asdict(limits),
        "times": asdict(times), "grid": asdict(grid), "needs_pose": needs_pose,
    }  # fmt: skip


def _formerly(skills: Skills) -> dict[str, str]:
    """File name -> SHA-256 of the file that a bundle was before it was given its present schema, network unchanged."""
    told = {bundle.path.name: bundle.metadata.provenance.get("formerly") for bundle in skills.bundles}
    return {name: str(digest) for name, digest in told.items() if digest}


class Replayed(MessageFilter):
    """A filter whose snapshots come from a recording."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.shown = Snapshot()
        self.time = 0
        """When the step that is replayed was over, ns."""

    def snapshot(self) -> Snapshot:
        return self.shown


class _Nowhere:
    """A transport to nothing."""

    def write(self, output: Output) -> None:
        """Nobody hears."""

    def report(self, status: dict[str, Any]) -> None:
        """Nobody hears."""

    def close(self) -> None:
        """Nothing to let go of."""


def replay(options: ReplayOptions) -> Replay:
    """Runs the loop over a recording and compares states, modes and joint targets.

    `bundle` takes the place of the policy that was recorded; without it its bundles must be the same to the last bit.

    Raises:
      InputError: no recording, or one of another policy, robot or version of this code.
    """
    recording = read(options.recording)
    if recording.cut:
        print(printable(recording.cut), file=sys.stderr)
    controller, messages = rebuilt(recording, options.bundle)
    largest, differing, first = 0.0, 0, ""
    for k, row in enumerate(recording.steps):
        grid = recording.grid_at(k) if recording.grids else None
        messages.shown = snapshot_of(row, grid)
        took = float(recording.steps["took"][k + 1]) if k + 1 < len(recording.steps) else 0.0
        messages.time = int(row["now"]) + round(took * NS)
        for code in cast(list[int], row["requests"][row["requests"] > 0].tolist()):
            messages.requests.append(Request(REQUESTS[code - 1]))
        output = controller.step(int(row["now"]), float(row["late"]), float(row["took"]))
        moved = output.mode == Mode.POSITION == row["mode"]
        difference = float(np.abs(output.targets - row["targets"]).max()) if moved else 0.0
        largest = max(largest, difference)
        problem = _difference(controller.state, output.mode, row, difference)
        differing += bool(problem)
        first = first or (f"step {k}: {problem}" if problem else "")
    return Replay(
        recording=str(options.recording),
        steps=len(recording.steps),
        seconds=float(recording.steps["now"][-1] - recording.steps["now"][0]) / 1e9,
        equal=differing == 0,
        differing_steps=differing,
        first_difference=first,
        largest_target_difference=largest,
        lost_bytes=recording.lost,
        states=[State(int(s)).name.lower() for s in _runs(recording.steps["state"])],
    )


def _difference(state: State, mode: Mode, row: Array, difference: float) -> str:
    if state != row["state"]:
        return f"the state was {State(int(row['state'])).name}, now {state.name}"
    if mode != row["mode"]:
        return f"the output was {Mode(int(row['mode'])).name}, now {mode.name}"
    return f"a joint target differs by {difference:.3g} rad" if not difference <= TOLERANCE else ""


def _runs(values: Array) -> Array:
    """`values` without what repeats the one before."""
    return values[np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))]


def rebuilt(recording: Recording, policy: str | None) -> tuple[Controller, Replayed]:
    """The controller that a recording is of, or the same with another `policy`, and what it is to be shown.

    Raises:
      InputError: a recording of another policy, robot or version of this code.
    """
    told, path = recording.header, recording.path
    if told.get("schema") != SCHEMA:
        raise InputError(f"{path} has the version {told.get('schema')}, this code reads {SCHEMA}")
    try:
        limits, times = parameters.make(Limits, told["limits"]), parameters.make(Times, told["times"])
        grid = parameters.make(GridPlace, told["grid"])
        course = None if told["course"] is None else course_file.loads(told["course"], str(path))
        named, bundles, needs_pose = str(policy or told["policy"]), dict(told["bundles"]), bool(told["needs_pose"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} has a header that cannot be used: {error}") from error
    skills = load_skills(named, str(told.get("robot")) if named in NAMED else None)
    if skills.robot.name != told.get("robot"):
        raise InputError(f"{path} is of the robot {told.get('robot')}, the policy is for {skills.robot.name}")
    if policy is None:
        here = sha256(skills)
        if bundles not in (here, here | _formerly(skills)):
            raise InputError(
                f"{path} was recorded with other bundles than {named} has now; name one to compare with it"
            )
    messages = Replayed(skills.robot, lambda: messages.time)
    onboard = OnboardPolicy(skills, TerrainHeights(skills.robot, course, grid))
    return Controller(onboard, messages, _Nowhere(), limits, times, needs_pose=needs_pose), messages
