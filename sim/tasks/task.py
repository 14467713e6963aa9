"""A task: terms with names put together, one definition for both engines.

What is asked (`commands`), where (`ground`), what is seen (`grids`, `critic`), what pays (`weights` of `rewards`), what
ends an episode (`endings`), what differs from world to world (`ranges`, `noise`, `pushes`, `thrown`) and how it gets
harder (`curriculum`). Pure functions over numpy or jax.numpy, any leading dimensions. All chance enters through arrays
of uniform numbers that the caller draws, so the engines differ only in who draws them and who steps the physics.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np

from sim import gait as clocks
from sim import observation as obs
from sim.arrays import Array, Namespace
from sim.handover import SET, clock_lag, faded
from sim.physics.base import PhysicsReading
from sim.robots.description import Robot, default_robot
from sim.robots.gaits import Gait
from sim.tasks import boards, commands, events, rewards, ways
from sim.tasks.commands import Commands
from sim.tasks.curricula import AsItStands, Distance
from sim.tasks.draws import Drawn, Draws
from sim.tasks.endings import ended
from sim.tasks.events import Pushes
from sim.tasks.ground import Ground
from sim.tasks.handovers import Handovers
from sim.tasks.observations import CRITIC, Look, heading_frame
from sim.tasks.randomization import Ranges, SensorNoise, noise_numbers, noisy
from sim.tasks.state import Motion, Outcome, TaskState
from sim.tasks.ways import Ways

TOUCHING = 1.0
"""A foot that presses harder than this is on the ground, N."""
SETTLED = 1.0
"""Errors count from this long after a change of command on, s."""
FOR_EVER = 1e6
"""Control steps that no episode has."""


def episode_draws(robot: Robot, *more: tuple[str, int]) -> Draws:
    """What is drawn at the start of an episode."""
    thrown = len(events.THROWN_BASE) + robot.joints + len(robot.legs)
    return Draws(
        ("place", 2), ("heading", 1), ("joints", robot.joints), ("velocity", 3), *commands.DRAWS, ("thrown", 1),
        ("thrown_state", thrown), ("", 1), ("thrown_phase", 1), ("", 4), ("thrown_slow", 1), ("thrown_slower", 1),
        ("running", 1), ("running_speed", 1), ("board_distance", 1), ("board_width", 2), ("board_speed", 1),
        ("running_phase", 1), ("run_up", 1), ("handed", 1), ("handed_state", 1), ("", 2), *more,
    )  # fmt: skip


def step_draws(robot: Robot, *more: tuple[str, int]) -> Draws:
    """What is drawn in every control step."""
    return Draws(
        *commands.DRAWS, ("noise", noise_numbers(robot)), ("height", 1), ("", 1), ("push", 1), ("push_angle", 1),
        ("push_size", 1), ("", 1), *boards.DRAWS, *more,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Task:
    """What a skill is trained on; the defaults are omnidirectional walking on uneven ground."""

    robot: Robot = field(default_factory=default_robot)
    ground: Ground = field(default_factory=Ground)
    clock: Gait | None = None
    """The gait clock; the robot's trot where none is given."""
    grids: tuple[obs.Grid, ...] = (obs.around(),)
    """The ground that the actor sees."""
    commands: Commands = Commands()
    critic: tuple[str, ...] = ("velocity", "height", "contact", "frame")
    """What the critic sees besides, names of `observations.CRITIC`."""
    weights: dict[str, float] = field(default_factory=lambda: dict(rewards.WALK))
    """Of the reward's terms, names of `rewards.TERMS`."""
    endings: tuple[str, ...] = ("tilted", "low")
    """What ends an episode as a fall does, names of `endings.ENDINGS`."""
    curriculum: Distance | AsItStands = Distance()
    start_level: float = 1.0
    ranges: Ranges = Ranges()
    """What is randomised in training."""
    noise: SensorNoise = SensorNoise()
    pushes: Pushes = Pushes()
    thrown: float = 0.0
    """Share of episodes that begin as another skill hands a robot over: moving, pitched, legs anywhere
    (`events.thrown`)."""
    handovers: Handovers | None = None
    """States in which episodes begin in place of drawn ones (`handovers.SHARE` of them); on ground with boards."""
    ways: Ways | None = None
    """Planned motions that are asked for on flat ground in place of most random velocities."""
    poles: bool = False
    """Whether the weave poles of these motions' courses stand there. On the C engine."""
    preview: obs.Preview = obs.Preview()
    """What the actor sees of the motion that is asked for next."""
    collision: Literal["feet", "full"] = "feet"
    """What touches the ground in training: "feet" (with the shanks; faster) or "full" (the trunk too)."""
    episode_seconds: float = 10.0

    @cached_property
    def gait(self) -> Gait:
        """The gait clock."""
        return self.clock or self.robot.trot

    @cached_property
    def layout(self) -> obs.Layout:
        """The actor's input."""
        return obs.Layout(self.robot.joints, grids=self.grids, preview=self.preview)

    @cached_property
    def drawn(self) -> tuple[Draws, Draws]:
        """What is drawn at the start of an episode, and in every control step."""
        more = ways.DRAWS if self.ways else ()
        return episode_draws(self.robot, *more), step_draws(self.robot, *more)

    @property
    def uniforms(self) -> int:
        """Uniform numbers that a world needs per control step."""
        return max(draws.size for draws in self.drawn)

    @property
    def privileged_size(self) -> int:
        """Length of the critic's input: the actor's, then `critic`."""
        return self.layout.size + sum(CRITIC[name].size(self.robot) for name in self.critic)

    @property
    def episode_steps(self) -> int:
        """Control steps in a full episode."""
        return round(self.episode_seconds / self.robot.control_period)

    def hastened(self, haste: float) -> Self:
        """The same task where speeds are asked for that reach `haste` times as far."""
        return replace(self, commands=self.commands.hastened(haste), ground=self.ground.hastened(haste))

    # --- start of an episode ----------------------------------------------------------------------------------------

    def begin(self, xp: Namespace, u: Array, kind: Array, level: Array) -> tuple[TaskState, Array, Array]:
        """A fresh episode.

        Args:
          u: uniform numbers in [0, 1), `[..., uniforms]`.
          kind, level: ground of each world, `[...]`.

        Returns:
          Task state, qpos `[..., 7 + J]`, qvel `[..., 6 + J]`.
        """
        robot, drawn = self.robot, self.drawn[0].of(u)
        start = self.ground.start(xp, drawn, robot, kind, level)
        xy, z, yaw, zero = start.xy, start.z, start.yaw, xp.zeros_like(start.yaw)
        quat = xp.stack([xp.cos(yaw / 2), zero, zero, xp.sin(yaw / 2)], -1)
        joints = xp.asarray(robot.default_pose) + (drawn.joints - 0.5) * 0.2
        qpos = xp.concatenate([xy, z[..., None], quat, joints], -1).astype(xp.float32)
        still = xp.zeros((*yaw.shape, 3 + robot.joints), xp.float32)
        qvel = xp.concatenate([(drawn.velocity - 0.5) * 0.4, still], -1).astype(xp.float32)
        if start.velocity is not None:
            qvel = xp.concatenate([qvel[..., :2] + start.velocity, qvel[..., 2:]], -1).astype(xp.float32)
        command, life = self._drawn_command(xp, drawn, kind)
        offset = xy - self.ground.origin(xp, kind, level)
        command = self.ground.guide(xp, command, self.commands, kind, offset, yaw, start.board)
        life = xp.full(yaw.shape, FOR_EVER, xp.float32) if self.ground.commands_last else life
        phase = start.phase
        if self.thrown:
            chosen = drawn.thrown < self.thrown
            qpos, qvel, phase, slower = events.thrown(xp, robot, drawn, qpos, qvel, yaw, chosen)
            command = command * slower[..., None]
        way = xp.zeros((*yaw.shape, ways.NUMBERS), xp.float32)
        if self.ways:
            way = self.ways.drawn(xp, drawn, qpos[..., :2], yaw, kind == 0, robot.control_period)
            command, life = self._on_the_way(xp, way, command, life, qpos[..., :2], yaw)
        action = xp.zeros_like(joints)
        sensors = obs.Sensors(qpos[..., 3:7], qvel[..., 3:6], qpos[..., 7:], qvel[..., 6:])
        zeros = zero.astype(xp.float32)
        state = TaskState(
            history=obs.fill(xp, obs.frame(xp, robot, sensors, action)),
            last_action=action,
            older_action=action,
            last_targets=qpos[..., 7:],
            last_joint_velocity=qvel[..., 6:],
            last_feet=xp.repeat(xy[..., None, :], len(robot.legs), -2),
            phase=phase.astype(xp.float32),
            command=command.astype(xp.float32),
            command_age=zeros,
            command_life=life,
            command_goal=command.astype(xp.float32),
            command_slew=xp.full(yaw.shape, commands.AT_ONCE, xp.float32),
            way=way,
            kind=kind,
            level=level,
            steps=zeros,
            relief=obs.relief(xp, self.layout, self._heights(xp, xy, yaw, z, 0.0)),
            asked=zeros,
            travelled=zeros,
            board=start.board,
            handed_age=xp.full(yaw.shape, FOR_EVER, xp.float32),
            handed_gap=xp.zeros_like(action),
            handed_slip=zeros,
        )
        return self._handed_over(xp, drawn, state, qpos, qvel) if self.handovers else (state, qpos, qvel)

    def _handed_over(
        self, xp: Namespace, drawn: Drawn, state: TaskState, qpos: Array, qvel: Array
    ) -> tuple[TaskState, Array, Array]:
        """The same, begun where another skill hands the robot over in a share of the worlds."""
        assert self.handovers is not None
        chosen, found = self.handovers.drawn(xp, drawn)
        near, board = self.ground.handed(xp, state.kind, state.level, state.board, found.speed)
        xy, z, yaw = near + found.place[..., :2], found.place[..., 2], obs.yaw_of(xp, found.orientation)
        moved = xp.concatenate([xy, z[..., None], found.orientation, found.joints], -1)
        offset = xy - self.ground.origin(xp, state.kind, state.level)
        command = self.ground.guide(xp, state.command, self.commands, state.kind, offset, yaw, board)
        heights = self._heights(xp, xy, yaw, z, 0.0, board)
        actions = obs.frame_slices(self.robot.joints)["last_action"]
        lag, _ = clock_lag(xp, self.gait, self.layout, heights, found.phase, command)
        other = state._replace(
            history=found.history,
            last_action=found.history[..., 0, actions],
            older_action=found.history[..., 1, actions],
            last_targets=found.targets,
            last_joint_velocity=found.velocity[..., 6:],
            last_feet=xp.repeat(xy[..., None, :], len(self.robot.legs), -2),
            phase=found.phase,
            command=command,
            relief=obs.relief(xp, self.layout, heights),
            board=board,
            handed_age=xp.zeros_like(found.phase),
            handed_slip=(lag / SET).astype(xp.float32),
        )

        def either(new: Array, old: Array) -> Array:
            return xp.where(chosen.reshape(chosen.shape + (1,) * (old.ndim - chosen.ndim)), new, old).astype(old.dtype)

        state = TaskState(*(either(new, old) for new, old in zip(other, state, strict=True)))
        return state, either(moved, qpos), either(found.velocity, qvel)

    # --- one control step -------------------------------------------------------------------------------------------

    def targets(self, xp: Namespace, state: TaskState, action: Array) -> Array:
        """Joint targets, rad `[..., J]`, for an action `[..., J]` (clipped here)."""
        asked = self._asked_targets(xp, state, action)
        if self.handovers is None:
            return asked
        return faded(xp, self.robot, asked, self._handed_gap(xp, state, asked), state.handed_age)

    def _asked_targets(self, xp: Namespace, state: TaskState, action: Array) -> Array:
        """What the action alone asks for, rad `[..., J]`."""
        action = self._clipped(xp, action)
        return obs.joint_targets(xp, self.robot, self.gait, action, state.phase, state.command, state.relief)

    def _handed_gap(self, xp: Namespace, state: TaskState, asked: Array) -> Array:
        """`TaskState.handed_gap` from the step on in which the robot is handed over."""
        return xp.where((state.handed_age == 0)[..., None], state.last_targets - asked, state.handed_gap)

    def after(
        self, xp: Namespace, state: TaskState, action: Array, targets: Array, reading: PhysicsReading, points: Array,
        bias: Array, u: Array,
    ) -> Outcome:  # fmt: skip
        """Everything that follows the physics of one control step.

        Args:
          action, targets: what was applied, `[..., J]`.
          reading: the physics after the step, with `contact`.
          points: world positions of the feet, m, and of what else `Ground.parts` names, `[..., parts * legs, 3]`.
          bias: encoder offsets, rad, `[..., J]`.
          u: fresh uniform numbers, `[..., uniforms]`.
        """
        drawn, dt, action = self.drawn[1].of(u), self.robot.control_period, self._clipped(xp, action)
        feet = points[..., : len(self.robot.legs), :]
        passage = self.ground.follow(xp, self.robot, state, reading.qpos, points, drawn)
        motion = self._motion(xp, state, action, targets, reading, feet)
        way = state.way
        if self.ways:
            way = self.ways.onward(xp, way, motion.place, dt)
            now = self.ways.velocity_of(xp, way, motion.place, motion.yaw, dt)
            motion = motion._replace(wanted=xp.where(way[..., :1] > 0, now, state.command))
        fallen = ended(xp, self.endings, self.robot, self.ground, state, motion)
        motion = motion._replace(fallen=fallen, touch=passage.touch, cleared=passage.cleared)
        reward, terms = rewards.total(xp, self.weights, motion, dt)

        offset = motion.place - self.ground.origin(xp, state.kind, state.level)
        shift = self.ground.shift(xp, offset)
        following = self._commanded(xp, state._replace(way=way), drawn, offset, motion, shift, passage.board)
        following = self._clocked(xp, following, reading, shift, motion.yaw)
        if self.handovers:
            gap = self._handed_gap(xp, state, self._asked_targets(xp, state, action))
            following = following._replace(handed_gap=gap, handed_age=following.handed_age + 1)
        following = self._remembered(xp, following, motion, reading, targets, feet, shift, bias, drawn)
        following = following._replace(level=passage.level)
        observation, privileged = self.observe(xp, following, reading, shift, motion.contact, drawn.height[..., None])
        truncated = (following.steps >= self.episode_steps).astype(xp.float32) * (1 - fallen)
        metrics = self._metrics(xp, state, motion) | (passage.counts or {})
        push = self.pushes.draw(xp, drawn, dt)
        return Outcome(following, observation, privileged, reward, terms, metrics, fallen, truncated, push, shift)

    def observe(
        self, xp: Namespace, state: TaskState, reading: PhysicsReading, shift: Array, contact: Array, u: Array
    ) -> tuple[Array, Array]:
        """The actor's input `[..., layout.size]` and the critic's `[..., privileged_size]`.

        `shift` `[..., 2]` is added to the base position first; `u` `[..., 1]` makes the height noise (a common offset,
        as an error of the estimated base height is).
        """
        xy, z = reading.qpos[..., :2] + shift, reading.qpos[..., 2]
        yaw = obs.yaw_of(xp, reading.qpos[..., 3:7])
        clock = clocks.clock(xp, self.gait, state.phase, state.command)
        heights = self._heights(xp, xy, yaw, z, (2 * u - 1) * self.noise.height, state.board)
        preview = self._preview(xp, state, xy, yaw) if self.preview.seconds else None
        observation = obs.observe(xp, self.layout, state.history, state.command, clock, heights, preview)
        look = Look(reading, xy, yaw, contact)
        more = [CRITIC[name].of(xp, self.robot, self.ground, state, look) for name in self.critic]
        return observation, xp.concatenate([observation, *more], -1).astype(xp.float32)

    def promote(self, xp: Namespace, state: TaskState, fallen: Array) -> Array:
        """The level of the next episode, `[...]`, after one that ended in `state`, as `curriculum` says."""
        return self.curriculum(xp, state, fallen, self.episode_steps)

    # --- parts of a step --------------------------------------------------------------------------------------------

    def _clipped(self, xp: Namespace, action: Array) -> Array:
        return xp.clip(action, -self.robot.action_limit, self.robot.action_limit)

    def _heights(
        self, xp: Namespace, xy: Array, yaw: Array, z: Array, error: Array, board: Array | None = None
    ) -> Array:
        return self.ground.heights(xp, self.robot, self.layout, xy, yaw, z, error, board)

    def _preview(self, xp: Namespace, state: TaskState, xy: Array, yaw: Array) -> Array:
        """What is asked for next, `[..., moments, 3]`, for bases at `xy` `[..., 2]` with heading `yaw`."""

        def command(later: float) -> Array:
            if not self.commands.slewed or self.ground.guided:
                return state.command
            return self.commands.towards(xp, state.command, state.command_goal, state.command_slew, later)

        seen = self.preview.foreseen(xp, command)
        if self.ways is None:
            return seen
        planned = self.ways.preview(xp, self.preview, state.way, xy, yaw, self.robot.control_period)
        return xp.where((state.way[..., 0] > 0)[..., None, None], planned, seen)

    def _drawn_command(self, xp: Namespace, drawn: Drawn, kind: Array) -> tuple[Array, Array]:
        rough = kind != 0
        return self.commands.draw(xp, drawn, rough, self.ground.guides(xp, kind), self.robot.control_period)

    def _on_the_way(
        self, xp: Namespace, way: Array, command: Array, life: Array, place: Array, yaw: Array
    ) -> tuple[Array, Array]:
        """Command and life where a planned way is followed; the given ones elsewhere."""
        assert self.ways is not None
        period, on = self.robot.control_period, way[..., 0] > 0
        asked = self.ways.velocity_of(xp, way, place, yaw, period, ways.LEAD, ways.TURN_LEAD)
        command = xp.where(on[..., None], self.commands.within(xp, asked), command).astype(xp.float32)
        return command, xp.where(on, life + round(ways.LONGER / period), life).astype(xp.float32)

    def _motion(
        self, xp: Namespace, state: TaskState, action: Array, targets: Array, reading: PhysicsReading, feet: Array
    ) -> Motion:
        """What the step looked like."""
        robot, dt, qpos, qvel = self.robot, self.robot.control_period, reading.qpos, reading.qvel
        joints, speeds = qpos[..., 7:], qvel[..., 6:]
        yaw = obs.yaw_of(xp, qpos[..., 3:7])
        kp, kd, peak = (xp.asarray(x.astype(np.float32)) for x in (robot.kp, robot.kd, robot.torque_limit))
        moving = clocks.moving(xp, self.gait, state.command)
        offset = joints - xp.asarray(robot.default_pose)
        return Motion(
            velocity=heading_frame(xp, qvel[..., :3], yaw),
            angular_velocity=qvel[..., 3:6],
            gravity=obs.projected_gravity(xp, qpos[..., 3:7]),
            command=state.command,
            moving=moving,
            joint_offset=offset,
            abduction=offset[..., robot.leg_joints[:, 0]],
            joint_velocity=speeds,
            joint_acceleration=(speeds - state.last_joint_velocity) / dt,
            torque=xp.clip(kp * (targets - joints) - kd * speeds, -peak, peak),
            action=action,
            last_action=state.last_action,
            older_action=state.older_action,
            contact=(reading.contact > TOUCHING).astype(xp.float32),
            swing=clocks.swing(xp, robot, self.gait, state.phase) * moving[..., None],
            foot_speed=xp.sqrt(((feet[..., :2] - state.last_feet) ** 2).sum(-1)) / dt * (state.steps > 0)[..., None],
            clearance=qpos[..., 2] - self.ground.height(xp, qpos[..., :2]),
            place=qpos[..., :2],
            yaw=yaw,
            wanted=state.command,
            low=robot.fall.low,
            poles=0.0 if reading.poles is None else reading.poles,
        )

    def _metrics(self, xp: Namespace, state: TaskState, m: Motion) -> dict[str, Array]:
        return {
            "velocity_error": xp.sqrt(((m.velocity[..., :2] - m.wanted[..., :2]) ** 2).sum(-1)),
            "yaw_error": xp.abs(m.angular_velocity[..., 2] - m.wanted[..., 2]),
            "settled": (state.command_age * self.robot.control_period >= SETTLED).astype(xp.float32),
        }

    def _commanded(
        self, xp: Namespace, state: TaskState, drawn: Drawn, offset: Array, m: Motion, shift: Array, board: Array
    ) -> TaskState:
        """The state with the command of the next step: a new one where the old one has lived, steered by the ground."""
        yaw, way = m.yaw, state.way
        expired = state.command_age + 1 >= state.command_life
        fresh, life = self._drawn_command(xp, drawn, state.kind)
        goal = xp.where(expired[..., None], fresh, state.command_goal)
        slew, command = state.command_slew, xp.where(expired[..., None], fresh, state.command)
        if self.commands.slewed:
            slew = xp.where(expired, self.commands.drawn_slew(xp, drawn), slew)
            command = self.commands.towards(xp, state.command, goal, slew, self.robot.control_period)
        command = self.ground.guide(xp, command, self.commands, state.kind, offset, yaw, board)
        if self.ways:
            fresh = self.ways.drawn(xp, drawn, m.place, yaw, state.kind == 0, self.robot.control_period)
            way = xp.where(expired[..., None], fresh, way)
            command, life = self._on_the_way(xp, way, command, life, m.place, yaw)
            moved = xp.concatenate([way[..., 4:6] + shift, way[..., 6:]], -1)
            way = xp.concatenate([way[..., :4], moved], -1).astype(xp.float32)
        return state._replace(
            way=way,
            command=command,
            command_age=xp.where(expired, 0.0, state.command_age + 1).astype(xp.float32),
            command_life=xp.where(expired, life, state.command_life).astype(xp.float32),
            command_goal=goal,
            command_slew=slew,
            board=board,
        )

    def _clocked(self, xp: Namespace, state: TaskState, reading: PhysicsReading, shift: Array, yaw: Array) -> TaskState:
        """The state with the clock turned on for the next step."""
        heights = self._heights(xp, reading.qpos[..., :2] + shift, yaw, reading.qpos[..., 2], 0.0, state.board)
        ahead = obs.board_ahead(xp, self.layout, heights) if self.gait.lock_gain else None
        phase = state.phase
        if self.handovers:
            phase = (phase + xp.where(state.handed_age < SET, state.handed_slip, 0.0)) % 1.0
        phase = clocks.advance(xp, self.gait, phase, state.command, self.robot.control_period, ahead)
        return state._replace(phase=phase, relief=obs.relief(xp, self.layout, heights))

    def _remembered(
        self, xp: Namespace, state: TaskState, m: Motion, reading: PhysicsReading, targets: Array, feet: Array,
        shift: Array, bias: Array, drawn: Drawn,
    ) -> TaskState:  # fmt: skip
        """The state with what was sensed, done and made in the step."""
        dt, qpos = self.robot.control_period, reading.qpos
        true = obs.Sensors(qpos[..., 3:7], m.angular_velocity, qpos[..., 7:] + bias, m.joint_velocity)
        newest = obs.frame(xp, self.robot, noisy(xp, self.noise, true, drawn.noise), m.action)
        asked = xp.sqrt((m.command[..., :2] ** 2).sum(-1))
        made = (m.velocity[..., :2] * m.command[..., :2]).sum(-1) / xp.maximum(asked, 1e-6)
        return state._replace(
            history=obs.push(xp, state.history, newest),
            last_action=m.action,
            older_action=m.last_action,
            last_targets=targets,
            last_joint_velocity=m.joint_velocity,
            last_feet=feet[..., :2] + shift[..., None, :],
            steps=state.steps + 1,
            asked=state.asked + asked * dt,
            travelled=state.travelled + xp.clip(made, 0.0, asked) * dt,
        )
