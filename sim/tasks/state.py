"""What a task remembers of a world between control steps, what a step looked like, and what comes of it."""

from typing import NamedTuple

from sim.arrays import Array


class TaskState(NamedTuple):
    """What one world remembers between control steps, besides physics. Leading dimensions `[...]`."""

    history: Array
    last_action: Array
    older_action: Array
    last_targets: Array
    """Joint targets of the step before, rad: they drive the joints until the latency has passed."""
    last_joint_velocity: Array
    last_feet: Array
    """World x, y of the feet one step ago, m, `[..., legs, 2]`."""
    phase: Array
    command: Array
    command_age: Array
    """Control steps since the command changed."""
    command_life: Array
    """Control steps after which it changes."""
    command_goal: Array
    """The command that the present one is on its way to, `[..., 3]`; the same where commands jump."""
    command_slew: Array
    """Acceleration on that way, m/s^2 `[...]`."""
    way: Array
    """The planned motion that is followed (`sim.tasks.ways`), `[..., 7]`; zeros where velocities are asked for."""
    kind: Array
    """Index of the ground's kind, int."""
    level: Array
    """Difficulty level, float so that it can be averaged."""
    steps: Array
    """Control steps in this episode."""
    relief: Array
    """Height of the steps around the robot as the policy sees them, m."""
    asked: Array
    """Distance that the commands of this episode asked for, m."""
    travelled: Array
    """Distance made along them, never more than asked, m."""
    board: Array
    """What is known of the board ahead (`sim.tasks.boards.Ahead`), `[..., 6]`; zeros where a task has none."""
    handed_age: Array
    """Control steps since another skill handed the robot over; without end in an episode that began otherwise."""
    handed_gap: Array
    """That skill's last joint targets less the first of this one, rad `[..., J]`."""
    handed_slip: Array
    """Cycles that the clock makes up in a step while it is being set behind a hand-over, `[...]`."""


class Motion(NamedTuple):
    """What one control step looked like. Velocities m/s and rad/s, heading frame: x ahead, y left, z up."""

    velocity: Array
    """Base velocity in the heading frame, `[..., 3]`."""
    angular_velocity: Array
    """Base frame, `[..., 3]`."""
    gravity: Array
    """Projected gravity, base frame, `[..., 3]`."""
    command: Array
    """`[..., 3]`."""
    moving: Array
    """1.0 where the command asks for motion, `[...]`."""
    joint_offset: Array
    """Joint angles from the default pose, rad, `[..., J]`."""
    abduction: Array
    """Those of the abduction joints, `[..., legs]`."""
    joint_velocity: Array
    joint_acceleration: Array
    torque: Array
    """PD torque estimate, N m, `[..., J]`."""
    action: Array
    last_action: Array
    older_action: Array
    contact: Array
    """1.0 per foot on the ground, `[..., legs]`."""
    swing: Array
    """Scheduled swing of each leg, 0 to 1, `[..., legs]`."""
    foot_speed: Array
    """Horizontal speed of each foot, m/s, `[..., legs]`."""
    clearance: Array
    """Base height over the ground beneath it, m, `[...]`."""
    place: Array
    """World x and y of the base, m, `[..., 2]`."""
    yaw: Array
    """Heading, rad, `[...]`."""
    wanted: Array
    """What pays, `[..., 3]` as `command`: on a planned way its velocity now, which the command leads."""
    fallen: Array = 0.0
    """1.0 where the robot has fallen or is otherwise past helping, `[...]`."""
    low: Array = 0.0
    """A clearance under which the base is too low, m."""
    touch: Array = 0.0
    """How much feet and knees touch a board, `[...]`; see `sim.tasks.boards`."""
    poles: Array = 0.0
    """1.0 where a part of the robot touches a weave pole, `[...]`."""
    cleared: Array = 0.0
    """1.0 in the step in which a board is behind the last foot and was not touched, `[...]`."""


class Outcome(NamedTuple):
    """Result of one control step of the task."""

    state: TaskState
    observation: Array
    privileged: Array
    reward: Array
    terms: dict[str, Array]
    metrics: dict[str, Array]
    """`velocity_error` (m/s), `yaw_error` (rad/s), `settled` (1.0 from the second after a command change on), and what
    boards count."""
    fallen: Array
    truncated: Array
    push: Array
    """Velocity kick to apply now, m/s, `[..., 2]`."""
    shift: Array
    """Move of the base by whole terrain periods, m, `[..., 2]`."""
