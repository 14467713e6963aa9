"""The skills' own training grounds as sources of experience: random steps, stairs, slopes, A-frames, boards.

The student sees both of its grids on every ground, and the ground's own clock; the specialist labels.
"""

from dataclasses import replace

import numpy as np

from distill.core.collect import CollectionPlan, Experience, Student
from distill.core.episodes import EpisodeRecorder
from distill.locomotion.course import as_bundle
from distill.locomotion.drive import Memory, Wheel, targets_to_actions
from policies.skills.library import Skills
from policies.transformer import generalist_layout
from sim import gait as clocks
from sim import observation as obs
from sim.envs.batched import BatchedEnv
from sim.errors import InputError
from sim.robots.gaits import DRIVEN
from sim.tasks.skills import TASKS

WORLDS = 192
START_LEVEL = {"walk": 3.0, "climb": 3.0, "jump": 3.5}
"""Of the curricula: specialists are through with the lower ones."""


class TaskCollector:
    """A specialist's own environment, driven by it, the student, or both."""

    def __init__(self, skill: str, teachers: Skills, threads: int = 0) -> None:
        self.name, self.teachers, self.threads = skill, teachers, threads
        self.bundle = teachers.bundles[teachers.uses[skill]]
        layout, robot = self.bundle.layout, teachers.robot
        grids = generalist_layout(robot.joints).grids
        task = replace(TASKS[skill](robot), grids=grids, clock=self.bundle.gait, start_level=START_LEVEL[skill])
        self.task, both = task, task.layout
        if replace(layout, grids=grids) != both:
            raise InputError(
                f"{self.bundle.path} sees other steps or clocks than the training ground of '{skill}' shows"
            )
        slices = both.slices()
        self.columns = np.concatenate([np.arange(both.size)[slices[name]] for name in layout.slices()])
        """Of the environment's observation: what the specialist sees."""

    def collect(self, student: Student | None, plan: CollectionPlan) -> Experience:
        """About `plan.rows` rows; `gain` is the mean reward per second of who drives."""
        task, gait, robot = self.task, self.task.gait, self.task.robot
        worlds = min(WORLDS, max(plan.rows // 100, 1))
        env = BatchedEnv(task, worlds, plan.seed % 100_003, threads=self.threads)
        memory = Memory(robot, worlds, as_bundle(student, self.teachers))
        wheel, recorder = Wheel(worlds, robot.joints, plan.beta, plan.seed), EpisodeRecorder()
        slices = task.layout.slices()
        first, last = slices["heights_around"].start, slices["heights_ahead"].stop
        observation = env.observe()[0]
        everyone = np.ones(worlds, bool)
        rewards, falls = [], 0.0
        for _ in range(max(plan.rows // worlds, 2)):
            state, heights = env.state, observation[:, first:last]
            expert = np.clip(self.bundle(observation[:, self.columns]), -robot.action_limit, robot.action_limit)
            board = obs.board_ahead(np, task.layout, heights) if gait.lock_gain else None
            turning = clocks.frequency(np, gait, state.phase, state.command, board) - DRIVEN.frequency
            label = targets_to_actions(robot, task.targets(np, state, expert))
            fresh = np.array(memory.fresh)
            newest, action = memory.see(
                observation[:, slices["frame_0"]], state.command, observation[:, slices["clock"]], heights
            )
            recorder.add(
                fresh, everyone, frames=newest, heights=heights.astype(np.float16),
                skill=np.full(worlds, self.teachers.uses[self.name], np.uint8),
                action=np.concatenate([label, turning[:, None]], 1).astype(np.float32),
            )  # fmt: skip
            teacher = wheel.turn() if memory.student else everyone
            own = obs.action_for(
                np,
                robot,
                gait,
                memory.targets(action, state.last_targets, ~fresh),
                state.phase,
                state.command,
                state.relief,
            )
            step = env.step(np.where(teacher[:, None], expert + wheel.noise(), own).astype(np.float32))
            assert env.outcome is not None
            memory.last_action = targets_to_actions(robot, env.outcome.state.last_targets)
            memory.begin((step.fallen + step.truncated) > 0)
            observation = step.observation
            rewards.append(float(step.reward.mean()))
            falls += float(step.fallen.sum())
        fields, episodes = recorder.episodes()
        seconds = len(rewards) * worlds * robot.control_period
        gain = max(float(np.mean(rewards)) / robot.control_period, 0.01)
        return Experience(fields, episodes, {"gain": gain, "falls_per_10s": 10 * falls / seconds})
