"""The walking task: one definition of commands, observations, rewards, falls and curriculum for both engines.

Pure functions over numpy or jax.numpy, any leading dimensions. All chance enters through arrays of uniform numbers that
the caller draws, so the engines differ only in who draws them and who steps the physics.
"""

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import numpy as np

from sim import gait as clocks
from sim import observation as obs
from sim.physics.base import Reading
from sim.robots.description import Robot, default_robot
from sim.robots.gaits import Gait
from sim.tasks import patches, rewards
from sim.tasks.draws import Drawn, Draws
from sim.tasks.randomization import Ranges, SensorNoise, noise_numbers, noisy

BOARD = 6
THROWN_BASE = [(-0.5, 2.0), (-0.5, 0.5), (-0.8, 0.8), (0.0, 0.12), (-0.25, 0.25), (-0.5, 0.4)]
THROWN_BASE += [(-1.5, 1.5), (-3.0, 3.0), (-1.0, 1.0)]
"""Ranges of what `WalkTask.thrown` draws for the base: velocity ahead, aside, up (m/s), height (m), roll and pitch
(rad), their rates and the yaw rate (rad/s)."""
THROWN_LEG, THROWN_SPEED = (0.2, 0.6, 0.6), 4.0
"""Half-widths for each leg's abduction, hip and knee from the default pose (rad) and for the speed of its joints
(rad/s)."""
COMMAND = (
    ("command_velocity", 3), ("command_straight", 1), ("command_standing", 1), ("command_life", 1), ("", 2),
)  # fmt: skip
BOARD_DRAWS = (
    ("board_pause", 1), ("board_distance", 1), ("board_width", 2), ("board_speed", 1), ("board_wait", 1), ("", 2),
)  # fmt: skip


def begin_draws(robot: Robot) -> Draws:
    """What is drawn at the start of an episode."""
    return Draws(
        ("place", 2), ("heading", 1), ("joints", robot.joints), ("velocity", 3), *COMMAND, ("thrown", 1),
        ("thrown_state", len(THROWN_BASE) + robot.joints + len(robot.legs)), ("", 1), ("thrown_phase", 1), ("", 4),
        ("thrown_slow", 1), ("thrown_slower", 1), ("running", 1), ("running_speed", 1), ("board_distance", 1),
        ("board_width", 2), ("board_speed", 1), ("running_phase", 1), ("run_up", 1), ("", 4),
    )  # fmt: skip


def step_draws(robot: Robot) -> Draws:
    """What is drawn in every control step."""
    return Draws(
        *COMMAND, ("noise", noise_numbers(robot)), ("height", 1), ("", 1), ("push", 1), ("push_angle", 1),
        ("push_size", 1), ("", 1), *BOARD_DRAWS,
    )  # fmt: skip


class TaskState(NamedTuple):
    """What one world remembers between control steps, besides physics. Leading dimensions `[...]`."""

    history: Any
    last_action: Any
    older_action: Any
    last_targets: Any
    """Joint targets of the step before, rad: they drive the joints until the latency has passed."""
    last_joint_velocity: Any
    last_feet: Any
    """World x, y of the feet one step ago, m, `[..., legs, 2]`."""
    phase: Any
    command: Any
    command_age: Any
    """Control steps since the command changed."""
    command_life: Any
    """Control steps after which it changes."""
    kind: Any
    """Index of the ground's kind, int."""
    level: Any
    """Difficulty level, float so that it can be averaged."""
    steps: Any
    """Control steps in this episode."""
    relief: Any
    """Height of the steps around the robot as the policy sees them, m."""
    asked: Any
    """Distance that the commands of this episode asked for, m."""
    travelled: Any
    """Distance made along them, never more than asked, m."""
    board: Any
    """What a jumper remembers of the board ahead, `[..., BOARD]` (`sim.tasks.jump`); zeros elsewhere."""


class Outcome(NamedTuple):
    """Result of one control step of the task."""

    state: TaskState
    observation: Any
    privileged: Any
    reward: Any
    terms: dict[str, Any]
    metrics: dict[str, Any]
    """`velocity_error` (m/s), `yaw_error` (rad/s) and `settled` (1.0 from the second after a command change on)."""
    fallen: Any
    truncated: Any
    push: Any
    """Velocity kick to apply now, m/s, `[..., 2]`."""
    shift: Any
    """Move of the base by whole terrain periods, m, `[..., 2]`."""


@dataclass(frozen=True)
class Commands:
    """Ranges of the random velocity commands, and how often they change."""

    forward: tuple[float, float] = (-1.6, 2.1)
    sideways: tuple[float, float] = (-0.9, 0.9)
    yaw: tuple[float, float] = (-1.7, 1.7)
    rough_scale: float = 0.65
    """Factor on planar speeds away from flat ground."""
    standing: float = 0.08
    """Share of commands that ask for standing still."""
    straight: float = 0.2
    """Share of commands that ask for forward motion alone."""
    seconds: tuple[float, float] = (2.0, 6.0)
    """How long a command lasts."""
    guided: tuple[float, float] = (0.4, 1.5)
    """Forward speeds on ground that guides, m/s."""


@dataclass(frozen=True, eq=False)
class WalkTask:
    """Omnidirectional walking on uneven ground."""

    robot: Robot = field(default_factory=default_robot)
    clock: Gait | None = None
    """The gait clock; the robot's trot where none is given."""
    grids: tuple[obs.Grid, ...] = (obs.around(),)
    """The ground that the actor sees."""
    commands: Commands = Commands()
    noise: SensorNoise = SensorNoise()
    ranges: Ranges = Ranges()
    """What is randomised in training."""
    weights: dict[str, float] = field(default_factory=lambda: dict(rewards.WALK))
    kinds: tuple[str, ...] = patches.KINDS
    kind_shares: tuple[float, ...] = (0.4, 0.1, 0.2, 0.12, 0.18)
    guided: tuple[str, ...] = ()
    """Kinds of ground on which commands keep the robot on the obstacle, as a navigator would."""
    collision: Literal["feet", "full"] = "feet"
    """What touches the ground in training: "feet" (with the shanks; faster) or "full" (the trunk too)."""
    episode_seconds: float = 10.0
    thrown: float = 0.0
    """Share of episodes that begin as another skill hands a robot over: moving, pitched, legs anywhere (`_thrown`)."""
    push_every: float = 4.0
    push_speed: float = 0.3
    """Largest kick, m/s."""
    start_level: float = 1.0
    promotion: tuple[float, float] = (0.85, 0.65)
    """Share of the asked distance above which the next episode is harder, and below which it is easier."""

    @cached_property
    def ground(self) -> patches.Patches:
        """The training ground (built once)."""
        return patches.make_patches(self.kinds)

    @cached_property
    def gait(self) -> Gait:
        """The gait clock."""
        return self.clock or self.robot.trot

    @cached_property
    def layout(self) -> obs.Layout:
        """The actor's input."""
        return obs.Layout(self.robot.joints, grids=self.grids)

    @cached_property
    def drawn(self) -> tuple[Draws, Draws]:
        """What is drawn at the start of an episode, and in every control step."""
        return begin_draws(self.robot), step_draws(self.robot)

    @property
    def uniforms(self) -> int:
        """Uniform numbers that a world needs per control step."""
        return max(draws.size for draws in self.drawn)

    @property
    def privileged_size(self) -> int:
        """Length of the critic's input: the actor's, velocity, height, contacts, the exact frame."""
        feet, frame = len(self.robot.legs), obs.frame_size(self.robot.joints)
        return self.layout.size + 3 + 1 + feet + frame + self.extra_privileged

    @property
    def parts(self) -> tuple[str, ...]:
        """Leg parts whose positions `after` is given, feet first."""
        return ("foot",)

    @property
    def extra_privileged(self) -> int:
        """How many more numbers a skill's critic sees."""
        return 0

    @property
    def episode_steps(self) -> int:
        """Control steps in a full episode."""
        return round(self.episode_seconds / self.robot.control_period)

    # --- start of an episode ----------------------------------------------------------------------------------------

    def begin(self, xp: Any, u: Any, kind: Any, level: Any) -> tuple[TaskState, Any, Any]:
        """A fresh episode.

        Args:
          u: uniform numbers in [0, 1), `[..., uniforms]`.
          kind, level: ground of each world, `[...]`.

        Returns:
          Task state, qpos `[..., 7 + J]`, qvel `[..., 6 + J]`.
        """
        robot, drawn = self.robot, self.drawn[0].of(u)
        origin = self._origin(xp, kind, level)
        xy = origin + (drawn.place - 0.5) * patches.PERIOD
        yaw = (drawn.heading - 0.5) * 2 * np.pi
        if self.guided:
            across = drawn.place[..., 1]
            side = xp.where(across < 0.5, -1.0, 1.0)
            aside = side * patches.LINES + 0.5 * ((2 * across) % 1.0 - 0.5)
            on_line = xp.stack([xy[..., 0], origin[..., 1] + aside], -1)
            along = 0.4 * yaw + xp.where(xp.abs(yaw) < np.pi / 2, 0.0, 0.6 * np.pi * xp.sign(yaw))
            guided = self._guides(xp, kind)
            xy, yaw = xp.where(guided[..., None], on_line, xy), xp.where(guided, along, yaw)
        joints = xp.asarray(robot.default_pose) + (drawn.joints - 0.5) * 0.2
        corners = [self._ground(xp, xy + xp.asarray(corner)) for corner in robot.footprint.corners]
        z = xp.stack([*corners, self._ground(xp, xy)], -1).max(-1) + robot.standing_height + 0.01
        half = yaw / 2
        zero = xp.zeros_like(yaw)
        quat = xp.stack([xp.cos(half), zero, zero, xp.sin(half)], -1)
        qpos = xp.concatenate([xy, z[..., None], quat, joints], -1).astype(xp.float32)
        still = xp.zeros((*yaw.shape, 3 + robot.joints), xp.float32)
        qvel = xp.concatenate([(drawn.velocity - 0.5) * 0.4, still], -1).astype(xp.float32)
        command, life = self._command(xp, drawn, kind)
        command = self._guide(xp, command, kind, xy - origin, yaw)
        phase = zero
        if self.thrown:
            thrown = drawn.thrown < self.thrown
            qpos, qvel, phase, slower = self._thrown(xp, drawn, qpos, qvel, yaw, thrown)
            quat, joints, command = qpos[..., 3:7], qpos[..., 7:], command * slower[..., None]
        action = xp.zeros_like(joints)
        sensors = obs.Sensors(quat, qvel[..., 3:6], joints, qvel[..., 6:])
        newest = obs.frame(xp, robot, sensors, action)
        zeros = zero.astype(xp.float32)
        state = TaskState(
            history=obs.fill(xp, newest),
            last_action=action,
            older_action=action,
            last_targets=joints,
            last_joint_velocity=qvel[..., 6:],
            last_feet=xp.repeat(xy[..., None, :], len(robot.legs), -2),
            phase=phase.astype(xp.float32),
            command=command.astype(xp.float32),
            command_age=zeros,
            command_life=life,
            kind=kind,
            level=level,
            steps=zeros,
            relief=obs.relief(xp, self.layout, self._heights(xp, xy, yaw, z, 0.0)),
            asked=zeros,
            travelled=zeros,
            board=xp.zeros((*yaw.shape, BOARD), xp.float32),
        )
        return state, qpos, qvel

    # --- one control step -------------------------------------------------------------------------------------------

    def _thrown(self, xp: Any, drawn: Drawn, qpos: Any, qvel: Any, yaw: Any, thrown: Any) -> tuple[Any, Any, Any, Any]:
        """qpos, qvel, clock phase and a factor on the command where `thrown`, as a bound leaves the robot on a table.

        Base up to 2 m/s ahead, pitched by 0.5 rad, up to 0.12 m higher; joints 0.6 rad off; half of the commands small.
        """
        robot, base = self.robot, len(THROWN_BASE)
        spread = np.array(THROWN_LEG)[np.argsort(robot.leg_joints.ravel()) % len(THROWN_LEG)]
        speed = [(-THROWN_SPEED, THROWN_SPEED)] * len(robot.legs)
        ranges = np.array([*THROWN_BASE, *((-half, half) for half in spread), *speed], np.float32)
        wide = ranges[:, 0] + drawn.thrown_state * (ranges[:, 1] - ranges[:, 0])
        ahead, aside, up, higher, roll, pitch = (wide[..., i] for i in range(6))
        c, s = xp.cos(yaw), xp.sin(yaw)
        half = 0.5 * xp.stack([roll, pitch, yaw], -1)
        (cr, cp, cy), (sr, sp, sy) = (tuple(f(half[..., i]) for i in range(3)) for f in (xp.cos, xp.sin))
        turned = [
            cr * cp * cy + sr * sp * sy, sr * cp * cy - cr * sp * sy, cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
        ]  # fmt: skip
        place = xp.concatenate([qpos[..., :2], (qpos[..., 2] + higher)[..., None], xp.stack(turned, -1)], -1)
        legs = xp.asarray(robot.default_pose) + wide[..., base : base + robot.joints]
        low, high = (xp.asarray(limit, dtype=xp.float32) for limit in (robot.joint_lower, robot.joint_upper))
        moved = xp.concatenate([place, xp.clip(legs, low, high)], -1)
        linear = xp.stack([c * ahead - s * aside, s * ahead + c * aside, up], -1)
        speeds = xp.concatenate([linear, wide[..., 6:9], wide[..., base + robot.joints :][..., robot.leg_of_joint]], -1)
        yes = thrown[..., None]
        slower = xp.where(thrown & (drawn.thrown_slow < 0.5), drawn.thrown_slower, 1.0)
        phase = xp.where(thrown, drawn.thrown_phase, 0.0)
        return (
            xp.where(yes, moved, qpos).astype(xp.float32), xp.where(yes, speeds, qvel).astype(xp.float32), phase, slower
        )  # fmt: skip

    def targets(self, xp: Any, state: TaskState, action: Any) -> Any:
        """Joint targets, rad `[..., J]`, for an action `[..., J]` (clipped here)."""
        limit = self.robot.action_limit
        action = xp.clip(action, -limit, limit)
        return obs.joint_targets(xp, self.robot, self.gait, action, state.phase, state.command, state.relief)

    def after(
        self, xp: Any, state: TaskState, action: Any, targets: Any, reading: Reading, feet: Any, bias: Any, u: Any
    ) -> Outcome:
        """Everything that follows the physics of one control step.

        Args:
          action, targets: what was applied, `[..., J]`.
          reading: the physics after the step.
          feet: world positions of the feet, m, and of what else `parts` names, `[..., parts * legs, 3]`.
          bias: encoder offsets, rad, `[..., J]`.
          u: fresh uniform numbers, `[..., uniforms]`.
        """
        robot, dt, drawn = self.robot, self.robot.control_period, self.drawn[1].of(u)
        limit = robot.action_limit
        action = xp.clip(action, -limit, limit)
        qpos, qvel = reading.qpos, reading.qvel
        quat, joints, speeds = qpos[..., 3:7], qpos[..., 7:], qvel[..., 6:]
        yaw = obs.yaw_of(xp, quat)
        velocity = self._heading_frame(xp, qvel[..., :3], yaw)
        gravity = obs.projected_gravity(xp, quat)
        below = self._ground(xp, qpos[..., :2])
        clearance = qpos[..., 2] - below
        down = (gravity[..., 2] > -robot.fall.learning_upright) | (clearance < robot.fall.learning_clearance)
        fallen = (down | self._astray(xp, state, qpos, yaw)).astype(xp.float32)
        contact = (reading.contact > 1.0).astype(xp.float32)
        board, level, touch, cleared, counts = self._board(xp, state, qpos, feet, drawn)
        feet = feet[..., : len(robot.legs), :]
        kp, kd, peak = (xp.asarray(x.astype(np.float32)) for x in (robot.kp, robot.kd, robot.torque_limit))
        motion = rewards.Motion(
            velocity=velocity,
            angular_velocity=qvel[..., 3:6],
            gravity=gravity,
            command=state.command,
            moving=clocks.moving(xp, self.gait, state.command),
            joint_offset=joints - xp.asarray(robot.default_pose),
            abduction=(joints - xp.asarray(robot.default_pose))[..., robot.leg_joints[:, 0]],
            joint_velocity=speeds,
            joint_acceleration=(speeds - state.last_joint_velocity) / dt,
            torque=xp.clip(kp * (targets - joints) - kd * speeds, -peak, peak),
            action=action,
            last_action=state.last_action,
            older_action=state.older_action,
            contact=contact,
            swing=clocks.swing(xp, robot, self.gait, state.phase)
            * clocks.moving(xp, self.gait, state.command)[..., None],
            foot_speed=xp.sqrt(((feet[..., :2] - state.last_feet) ** 2).sum(-1)) / dt * (state.steps > 0)[..., None],
            clearance=clearance,
            low=robot.fall.low,
            fallen=fallen,
            touch=touch,
            cleared=cleared,
        )
        reward, terms = rewards.total(xp, self.weights, motion, dt)
        metrics = {
            "velocity_error": xp.sqrt(((velocity[..., :2] - state.command[..., :2]) ** 2).sum(-1)),
            "yaw_error": xp.abs(motion.angular_velocity[..., 2] - state.command[..., 2]),
            "settled": (state.command_age * dt >= 1.0).astype(xp.float32),
            **counts,
        }

        expired = state.command_age + 1 >= state.command_life
        fresh, life = self._command(xp, drawn, state.kind)
        offset = qpos[..., :2] - self._origin(xp, state.kind, state.level)
        command = xp.where(expired[..., None], fresh, state.command)
        command = self._guide(xp, command, state.kind, offset, yaw, board)
        shift = self._shift(xp, offset)
        heights = self._heights(xp, qpos[..., :2] + shift, yaw, qpos[..., 2], 0.0, board)
        ahead = obs.board_ahead(xp, self.layout, heights) if self.gait.lock_gain else None
        phase = clocks.advance(xp, self.gait, state.phase, command, dt, ahead)
        sensors = noisy(xp, self.noise, obs.Sensors(quat, qvel[..., 3:6], joints + bias, speeds), drawn.noise)
        newest = obs.frame(xp, robot, sensors, action)
        history = obs.push(xp, state.history, newest)

        asked = xp.sqrt((state.command[..., :2] ** 2).sum(-1))
        made = (velocity[..., :2] * state.command[..., :2]).sum(-1) / xp.maximum(asked, 1e-6)
        steps = state.steps + 1
        following = state._replace(
            history=history,
            last_action=action,
            older_action=state.last_action,
            last_targets=targets,
            last_joint_velocity=speeds,
            last_feet=feet[..., :2] + shift[..., None, :],
            phase=phase,
            command=command,
            command_age=xp.where(expired, 0.0, state.command_age + 1).astype(xp.float32),
            command_life=xp.where(expired, life, state.command_life).astype(xp.float32),
            steps=steps,
            relief=obs.relief(xp, self.layout, heights),
            asked=state.asked + asked * dt,
            travelled=state.travelled + xp.clip(made, 0.0, asked) * dt,
            board=board,
            level=level,
        )
        observation, privileged = self.observe(xp, following, reading, shift, contact, drawn.height[..., None])
        kicked = (drawn.push < dt / self.push_every).astype(xp.float32)
        angle, size = 2 * np.pi * drawn.push_angle, self.push_speed * drawn.push_size * kicked
        push = size[..., None] * xp.stack([xp.cos(angle), xp.sin(angle)], -1)
        truncated = (steps >= self.episode_steps).astype(xp.float32) * (1 - fallen)
        return Outcome(following, observation, privileged, reward, terms, metrics, fallen, truncated, push, shift)

    def observe(self, xp: Any, state: TaskState, reading: Reading, shift: Any, contact: Any, u: Any) -> tuple[Any, Any]:
        """The actor's input `[..., layout.size]` and the critic's `[..., privileged_size]`.

        `shift` `[..., 2]` is added to the base position first; `u` `[..., 1]` makes the height noise (a common offset,
        as an error of the estimated base height is).
        """
        xy, z = reading.qpos[..., :2] + shift, reading.qpos[..., 2]
        yaw = obs.yaw_of(xp, reading.qpos[..., 3:7])
        clock = clocks.clock(xp, self.gait, state.phase, state.command)
        heights = self._heights(xp, xy, yaw, z, (2 * u - 1) * self.noise.height, state.board)
        observation = obs.observe(xp, self.layout, state.history, state.command, clock, heights)
        true = obs.Sensors(reading.qpos[..., 3:7], reading.qvel[..., 3:6], reading.qpos[..., 7:], reading.qvel[..., 6:])
        velocity = self._heading_frame(xp, reading.qvel[..., :3], yaw)
        height = (z - self._ground(xp, xy))[..., None]
        exact = obs.frame(xp, self.robot, true, state.last_action)
        more = self._more_privileged(xp, state, xy)
        privileged = xp.concatenate([observation, velocity, height, contact, exact, *more], -1).astype(xp.float32)
        return observation, privileged

    def promote(self, xp: Any, state: TaskState, fallen: Any) -> Any:
        """The next episode's level: up after making most of the distance that was asked (`promotion`), down after a
        fall or too little of it, `[...]`."""
        share = state.travelled / xp.maximum(state.asked, 1e-6)
        judged = (state.steps >= self.episode_steps / 2) * (state.asked > 1.0) * (1 - fallen)
        change = judged * (1.0 * (share > self.promotion[0]) - (share < self.promotion[1])) - fallen
        return xp.clip(state.level + change, 0, patches.LEVELS - 1).astype(xp.float32)

    # --- parts ------------------------------------------------------------------------------------------------------

    def _origin(self, xp: Any, kind: Any, level: Any) -> Any:
        return xp.asarray(self.ground.origins)[kind, level.astype(xp.int32)]

    def _board(self, xp: Any, state: TaskState, qpos: Any, feet: Any, drawn: Drawn) -> tuple[Any, Any, Any, Any, dict]:
        """The board ahead after this step, the level, `Motion.touch` and `.cleared`, and counts for the log."""
        return state.board, state.level, 0.0, 0.0, {}

    def _astray(self, xp: Any, state: TaskState, qpos: Any, yaw: Any) -> Any:
        """Whether the robot stands but the episode is lost, bool `[...]`."""
        return xp.zeros(yaw.shape, bool)

    def _more_privileged(self, xp: Any, state: TaskState, xy: Any) -> list[Any]:
        """What else the critic sees, `[..., extra_privileged]` in all."""
        return []

    def _shift(self, xp: Any, offset: Any) -> Any:
        """Move by whole periods of the ground, m, that keeps the base within one, `[..., 2]`."""
        return -patches.PERIOD * xp.round(offset / patches.PERIOD)

    def _heights(self, xp: Any, xy: Any, yaw: Any, z: Any, error: Any, board: Any = None) -> Any:
        """The policy's terrain heights `[..., n]` with an `error` (m) that all share; see `TaskState.board`."""
        return obs.terrain_heights(
            xp, self.robot, self.layout, partial(self.ground.heights.height, xp=xp), xy, yaw, z, error
        )

    def _ground(self, xp: Any, xy: Any) -> Any:
        return self.ground.heights.height(xy[..., 0], xy[..., 1], xp)

    @staticmethod
    def _heading_frame(xp: Any, velocity: Any, yaw: Any) -> Any:
        c, s = xp.cos(yaw), xp.sin(yaw)
        x, y = velocity[..., 0], velocity[..., 1]
        return xp.stack([c * x + s * y, c * y - s * x, velocity[..., 2]], -1)

    def _guide(self, xp: Any, command: Any, kind: Any, offset: Any, yaw: Any, board: Any = None) -> Any:
        """The command, where the ground guides: forward along x, whichever way is nearer, on the obstacle's line.

        `offset` `[..., 2]` is from the patch's origin, m.
        """
        if not self.guided:
            return command
        across = offset[..., 1] - patches.PERIOD * xp.round(offset[..., 1] / patches.PERIOD)
        aside = across - patches.LINES * xp.where(across < 0, -1.0, 1.0)
        turn = xp.arctan2(-xp.sin(yaw), xp.abs(xp.cos(yaw))) * xp.where(xp.cos(yaw) < 0, -1.0, 1.0)
        ahead = xp.clip(command[..., 0], *self.commands.guided)
        left = xp.clip(-1.5 * aside, -0.4, 0.4) * xp.cos(yaw)
        steered = xp.stack([ahead, left, xp.clip(2.5 * turn, -1.2, 1.2)], -1)
        return xp.where(self._guides(xp, kind)[..., None], steered, command).astype(xp.float32)

    def _guides(self, xp: Any, kind: Any) -> Any:
        """Whether the ground guides, bool `[...]`."""
        return xp.asarray(np.array([name in self.guided for name in self.kinds]))[kind]

    def _command(self, xp: Any, drawn: Drawn, kind: Any) -> tuple[Any, Any]:
        """A random command `[..., 3]` and its life in control steps `[...]`."""
        c = self.commands
        low, high = (xp.asarray([r[i] for r in (c.forward, c.sideways, c.yaw)], dtype=xp.float32) for i in (0, 1))
        command = low + drawn.command_velocity * (high - low)
        planar = xp.asarray([c.rough_scale, c.rough_scale, 1.0], dtype=xp.float32)
        command = command * xp.where((kind == 0)[..., None], xp.ones(3, xp.float32), planar)
        straight = xp.asarray([1.0, 0.0, 0.0], dtype=xp.float32)
        command = xp.where((drawn.command_straight < c.straight)[..., None], command * straight, command)
        command = xp.where((drawn.command_standing < c.standing)[..., None], xp.zeros_like(command), command)
        if self.guided:
            ahead = c.guided[0] + drawn.command_velocity[..., 0] * (c.guided[1] - c.guided[0])
            along = xp.stack([ahead, xp.zeros_like(ahead), xp.zeros_like(ahead)], -1)
            command = xp.where(self._guides(xp, kind)[..., None], along, command)
        life = (c.seconds[0] + drawn.command_life * (c.seconds[1] - c.seconds[0])) / self.robot.control_period
        return command.astype(xp.float32), xp.round(life).astype(xp.float32)
