"""Recording the moments in which a jumper takes a robot over, for its training to begin in.

Specialists run the shipped courses, with weak motors and without randomisation too, and short random ones in evaluation
physics; each run gives what `sim.tasks.handovers` keeps of the step in which the jumper drives for the first time.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from policies.evaluation.course_run import CourseWorlds
from policies.skills.library import Skills
from policies.skills.runner import PolicyRunner
from sim import observation as obs
from sim.course.description import Course
from sim.course.files import by_name
from sim.course.generator import short
from sim.course.obstacles.broad_jump import BroadJump
from sim.envs.worlds import world_seeds
from sim.errors import InputError
from sim.planar import to_body, wrap
from sim.tasks.handovers import Handovers


class Setting(NamedTuple):
    """What a jumper is handed over to in."""

    course: str
    runs: int
    randomize: bool = True
    strength: float = 1.0
    """Of the motors: a share of their peak torque."""


SETTINGS = (
    Setting("official", 64),
    Setting("official", 32, randomize=False),
    Setting("official", 32, strength=2 / 3),
    Setting("reversed", 48),
)
"""On the reversed course the run-up is 0.4 m shorter: the board comes a bound and a half after the hand-over."""
SHORT_COURSES, RUNS_EACH = 12, 16
"""Random courses of a turn and a board, and randomised runs of each."""


def record(skills: Skills, seed: int = 0, threads: int = 0, say: Callable[[str], None] = print) -> Handovers:
    """The hand-overs to the jumper in 368 runs, less those that ended before.

    Raises:
      InputError: the policy has no jumper of its own, or no run came to one.
    """
    if len(skills.bundles) < 2 or "jump" not in skills.able:
        raise InputError(f"the policy '{skills.policy}' hands nothing over to a jumper: it needs one beside a walker")
    drawn = [short([BroadJump.KIND], seed * SHORT_COURSES + i) for i in range(SHORT_COURSES)]
    settings = [(by_name(setting.course), setting) for setting in SETTINGS]
    settings += [(course, Setting(course.name, RUNS_EACH)) for course in drawn]
    found = []
    for number, (course, setting) in enumerate(settings):
        say(f"recording how the jumper takes over: {number + 1} of {len(settings)}")
        found += _on(course, skills, setting, seed + number, threads)
    if not found:
        raise InputError(f"in no run of '{skills.policy}' did the jumper take over")
    return Handovers(*(np.stack(values).astype(np.float32) for values in zip(*found, strict=True)))


def _on(course: Course, skills: Skills, setting: Setting, seed: int, threads: int) -> list[Handovers]:
    """One for each run of a course that comes to it (of 1, without its first axis)."""
    torque = None if setting.strength == 1.0 else setting.strength * skills.robot.peak_torque
    seeds = world_seeds(seed, setting.runs)
    worlds = CourseWorlds(course, skills, seeds, randomize=setting.randomize, torque_limit=torque, threads=threads)
    runner, jump = worlds.policy, skills.uses["jump"]
    assert isinstance(runner, PolicyRunner)
    board = next(obstacle.board for obstacle in course.obstacles if isinstance(obstacle, BroadJump))
    found: dict[int, Handovers] = {}
    going = True
    while going and len(found) < worlds.robots.worlds:
        qpos, qvel = (np.array(values) for values in (worlds.robots.physics.qpos, worlds.robots.physics.qvel))
        targets = np.array(runner.handover.targets)
        going = worlds.step()
        for i in np.flatnonzero(runner.changed & (runner.users == jump)).tolist():
            if i in found:
                continue
            ahead, left = to_body(qpos[i, 0] - board.center[0], qpos[i, 1] - board.center[1], board.yaw)
            height = qpos[i, 2] - float(course.height(qpos[i, :1], qpos[i, 1:2])[0])
            half = wrap(-board.yaw) / 2
            w, x, y, z = qpos[i, 3:7]
            c, s = np.cos(half), np.sin(half)
            history = np.array(runner.policies[jump].history[i, : obs.HISTORY])
            found[i] = Handovers(
                place=np.array([ahead + board.length / 2, left, height]),
                orientation=np.array([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w]),
                joints=qpos[i, 7:],
                velocity=np.array([*to_body(qvel[i, 0], qvel[i, 1], board.yaw), *qvel[i, 2:]]),
                history=history,
                targets=targets[i],
                phase=np.asarray(runner.policies[jump].phase[i]),
                speed=np.asarray(np.hypot(*worlds.traces[i].command[-1][:2])),
            )
    return [found[i] for i in sorted(found)]
