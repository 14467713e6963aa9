"""MuJoCo's JAX engine (MJX): worlds of one scene on an accelerator, or slowly on the CPU.

MJX tests every pair of geoms that may touch at every step, whether they are near each other or not. So scenes stay
small here: feet alone collide in training, and `FootGround` gives each foot the few boxes of the terrain that it can
reach.
Importing this module needs jax and mujoco-mjx (`pip install 'barkour[train]'`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjx

from sim.arrays import Namespace
from sim.course.scene import SolverOptions, build, foot_geoms
from sim.course.terrain import Block, Terrain
from sim.errors import InputError
from sim.observation import yaw_of
from sim.physics.base import PhysicsReading
from sim.physics.motor import torque_range
from sim.planar import to_world
from sim.robots.description import Robot

MAX_PAIRS = 256
"""Most pairs of geoms that may touch in one world: all of them are tested at every step, near or not."""
DERIVED = ("body_subtreemass", "body_invweight0", "dof_invweight0", "dof_M0", "actuator_acc0")
"""Model fields that `mj_setConst` computes from the others; they follow when masses and inertias are randomised."""
SLOTS = 4
"""Terrain boxes that one foot is tested against: enough for the corner where four blocks meet."""
CELL = 0.05
"""Edge of the cells for which the reachable boxes are listed, m."""
TRAVEL = 0.13
"""How far a foot may move in one control step, m."""
AWAY = 1000.0
"""Where unused boxes wait, m below the floor."""


class WorldState(NamedTuple):
    """All that a world remembers between steps; float32, `worlds` first or no leading dimension."""

    qpos: Any
    qvel: Any
    warmstart: Any
    """Last acceleration, from which the solver starts, `[..., nv]`."""
    sensors: Any
    geom_xpos: Any
    """World positions of the geoms, m, `[..., ngeom, 3]`, one substep old."""


class Engine:
    """One compiled scene as pure functions of one world; `vmap` them for many."""

    def __init__(self, model: mujoco.MjModel, most_pairs: int = MAX_PAIRS) -> None:
        """Raises `InputError` where MJX lacks something that the scene needs, or would be hopelessly slow at it."""
        _refuse(model, most_pairs)
        try:
            self.base: Any = mjx.put_model(model)
        except (NotImplementedError, ValueError) as error:
            raise InputError(f"MJX cannot run this scene: {error}; use the cpu engine") from error
        self.model = model
        self.data: Any = mjx.make_data(self.base)

    def start(self, qpos: Any, qvel: Any) -> WorldState:
        """A world at rest in its memory: no warm start, sensors still zero."""
        data = self.data
        return WorldState(qpos, qvel, jnp.zeros_like(qvel), jnp.zeros_like(data.sensordata), data.geom_xpos)

    def advance(
        self, model: Any, state: WorldState, targets: Any, substeps: Any, previous: Any, delay: Any, motor: Any = None
    ) -> WorldState:
        """One control step; arguments as `Physics.step`, without the leading dimension.

        Args:
          model: `Engine.base`, perhaps with fields replaced.
          substeps: a traced integer does as well, so that one compilation serves any number.
          motor: peak torque (N m) and no-load speed (rad/s) of `motor`, `[J]` both; None leaves the model's limits.
        """

        def substep(i: Any, data: Any) -> Any:
            limited = model
            if motor is not None:
                limits = jnp.stack(torque_range(jnp, motor[0], motor[1], data.qvel[6:]), -1)
                limited = model.replace(actuator_forcerange=limits)
            return mjx.step(limited, data.replace(ctrl=jnp.where(i >= delay, targets, previous)))

        data = self.data.replace(qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.warmstart)
        data = jax.lax.fori_loop(0, substeps, substep, data)
        return WorldState(data.qpos, data.qvel, data.qacc_warmstart, data.sensordata, data.geom_xpos)

    def expand(self, fields: dict[str, np.ndarray], worlds: int) -> dict[str, jax.Array]:
        """Per-world model fields for the device, with the constants that follow from them (`mj_setConst`).

        Raises:
          InputError: a field that MJX cannot vary, or a wrong shape.
        """
        for name, values in fields.items():
            own = getattr(self.base, name, None)
            if not isinstance(own, jax.Array):
                raise InputError(f"MJX cannot give model field '{name}' per-world values")
            if (worlds, *own.shape) != np.shape(values):
                raise InputError(f"model field {name} needs shape {(worlds, *own.shape)}, got {np.shape(values)}")
        friction = fields.get("dof_frictionloss")
        if friction is not None and np.any((friction > 0) & (self.model.dof_frictionloss == 0)):
            raise InputError("MJX cannot add dry friction to joints that have none in the scene")
        derived = {name: [] for name in DERIVED if name not in fields}
        model = copy_of(self.model)
        data = mujoco.MjData(model)
        for world in range(worlds):
            for name, values in fields.items():
                getattr(model, name)[...] = values[world]
            mujoco.mj_setConst(model, data)
            for name, rows in derived.items():
                rows.append(np.array(getattr(model, name)))
        every = {**fields, **{name: np.stack(rows) for name, rows in derived.items()}}
        return {name: jnp.asarray(np.asarray(values, np.float32)) for name, values in every.items()}


def copy_of(model: mujoco.MjModel) -> mujoco.MjModel:
    """An independent copy of a compiled model."""
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return mujoco.MjModel.from_binary_path("copy.mjb", {"copy.mjb": buffer.tobytes()})


def _refuse(model: mujoco.MjModel, most_pairs: int) -> None:
    """Raises `InputError` for contacts that MJX computes too slowly to be of use."""
    touch = (model.geom_contype[:, None] & model.geom_conaffinity) != 0
    weld = model.body_weldid[model.geom_bodyid]
    pairs = np.triu((touch | touch.T) & (weld[:, None] != weld), 1)
    count = int(pairs.sum())
    if count > most_pairs:
        raise InputError(
            f"this scene has {count} pairs of geoms that may touch, and MJX tests them all at every step (at most "
            f"{most_pairs} here): collide feet only, use a smaller terrain, or the cpu engine"
        )
    slow = mujoco.mjtGeom.mjGEOM_CYLINDER
    plane = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    for geom in np.flatnonzero(model.geom_type == slow):
        if ((pairs | pairs.T)[geom] & ~plane).any():
            name = model.geom(geom).name
            raise InputError(f"geom '{name}' is a cylinder, which MJX collides five times slower: make it a capsule")


class MjxPhysics:
    """Many worlds of one scene, compiled for whatever device jax has; the twin of `CpuPhysics`."""

    def __init__(self, model: mujoco.MjModel, worlds: int, most_pairs: int = MAX_PAIRS) -> None:
        if worlds < 1:
            raise InputError(f"physics needs at least 1 world, got {worlds}")
        self.engine = Engine(model, most_pairs)
        self.model = model
        self.worlds = worlds
        self.timestep = float(model.opt.timestep)
        self.fields: dict[str, jax.Array] = {}
        """Model fields with per-world values, `[worlds, ...]`; the others are common to all."""
        qpos = jnp.tile(jnp.asarray(model.qpos0, jnp.float32), (worlds, 1))
        self.state: WorldState = jax.vmap(self.engine.start)(qpos, jnp.zeros((worlds, model.nv)))
        self._motors: tuple[jax.Array, jax.Array] | None = None
        self._step = jax.jit(self._step_all)

    def _step_all(
        self, fields: Any, motors: Any, state: WorldState, targets: Any, substeps: Any, previous: Any, delay: Any
    ) -> WorldState:
        def world(fields: Any, motor: Any, state: WorldState, targets: Any, previous: Any, delay: Any) -> WorldState:
            model = self.engine.base.replace(**fields)
            return self.engine.advance(model, state, targets, substeps, previous, delay, motor)

        return jax.vmap(world)(fields, motors, state, targets, previous, delay)

    def motors(self, peak: np.ndarray, no_load_speed: np.ndarray) -> None:
        """See `Physics.motors`."""
        self._motors = (jnp.asarray(peak, jnp.float32), jnp.asarray(no_load_speed, jnp.float32))

    def reset(self, mask: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """See `Physics.reset`."""
        if not np.any(mask):
            return
        qpos, qvel = np.asarray(qpos, np.float32), np.asarray(qvel, np.float32)
        rest = jax.vmap(self.engine.start)(jnp.asarray(qpos), jnp.asarray(qvel))
        # the substep fills in sensors and positions before it moves anything; its motion is thrown away
        felt = self._step(self.fields, self._motors, rest, qpos[:, 7:], 1, qpos[:, 7:], np.zeros(self.worlds, np.int32))
        fresh = felt._replace(qpos=rest.qpos, qvel=rest.qvel)
        self.state = jax.tree.map(
            lambda new, old: jnp.where(np.reshape(mask, (-1, *[1] * (old.ndim - 1))), new, old), fresh, self.state
        )

    def step(self, targets: np.ndarray, substeps: int, previous: np.ndarray, delay: np.ndarray) -> None:
        """See `Physics.step`."""
        new, old = np.asarray(targets, np.float32), np.asarray(previous, np.float32)
        delay = np.asarray(delay, np.int32)
        self.state = self._step(self.fields, self._motors, self.state, new, int(substeps), old, delay)

    def read(self) -> PhysicsReading:
        """See `Physics.read`."""
        state = jax.device_get(self.state)
        return PhysicsReading(*(np.array(a, np.float32) for a in (state.qpos, state.qvel, state.sensors)))

    def shift(self, offset: np.ndarray) -> None:
        """Moves the base of each world by `offset` `[worlds, 2]` (m) without touching anything else."""
        self.state = self.state._replace(qpos=self.state.qpos.at[:, :2].add(offset))

    def push(self, velocity: np.ndarray) -> None:
        """Adds `velocity` `[worlds, 2]` (m/s, world frame) to the base: a kick."""
        self.state = self.state._replace(qvel=self.state.qvel.at[:, :2].add(velocity))

    def randomize(self, fields: dict[str, np.ndarray]) -> None:
        """See `Physics.randomize`. Derived constants follow (`mj_setConst`); changed fields replace earlier ones."""
        given = {name: np.asarray(values) for name, values in self.fields.items() if name not in DERIVED}
        self.fields = self.engine.expand({**given, **fields}, self.worlds)

    def save(self) -> dict[str, np.ndarray]:
        """Everything that decides the future, for a checkpoint; see `restore`."""
        return {name: np.array(value) for name, value in self.state._asdict().items()}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Continues exactly where `save` was called (model fields are the caller's to randomise again)."""
        for name, own in self.state._asdict().items():
            if name not in saved or np.shape(saved[name]) != own.shape:
                found = np.shape(saved[name]) if name in saved else "missing"
                raise InputError(f"saved physics '{name}' is {found}, this one has {own.shape}")
        self.state = WorldState(**{name: jnp.asarray(saved[name]) for name in WorldState._fields})


class FootGround:
    """A terrain of any size for MJX: each foot touches the floor and the `SLOTS` boxes within its reach.

    The scene holds `SLOTS` boxes per leg, which take the places of the terrain's own boxes before each control step.
    Only feet collide (and shanks on request, at half the speed).
    """

    def __init__(self, robot: Robot, terrain: Terrain, options: SolverOptions, *, shanks: bool = False) -> None:
        self.slots = SLOTS if terrain.pieces else 0
        waiting = [
            Block(f"slot {leg} {k}", (2.0 * leg, 2.0 * k), (1.0, 1.0), top=-AWAY, bottom=-AWAY - 1.0)
            for leg in range(len(robot.legs))
            for k in range(self.slots)
        ]
        self.model = build(robot, Terrain(tuple(waiting)), collision="feet", options=options)
        self.feet = foot_geoms(self.model, robot)
        self.slot_geoms = np.array([self.model.geom(block.name).id for block in waiting], int)
        self.model.geom("floor").conaffinity = (1 << len(robot.legs)) - 1
        for i, leg in enumerate(robot.legs):
            self.model.geom(leg.foot).contype = 1 << i
            self.model.geom(leg.shank).contype = (1 << i) if shanks else 0
            self.model.geom_conaffinity[self.slot_geoms[i * self.slots : (i + 1) * self.slots]] = 1 << i
        self.nominal = _nominal_feet(self.model, robot, self.feet)
        if self.slots:
            self._list_boxes(robot, terrain, options)

    def _list_boxes(self, robot: Robot, terrain: Terrain, options: SolverOptions) -> None:
        """Fills `table` `[nx, ny, SLOTS]`: boxes within reach of each cell, highest first; the last index is no box."""
        full = build(robot, terrain, collision="feet", options=options)
        ids = np.array([full.geom(piece.name).id for piece in terrain.pieces])
        data = mujoco.MjData(full)
        mujoco.mj_kinematics(full, data)
        away = np.array([[0.0, 0.0, -AWAY]])
        self.boxes = {
            "geom_pos": np.concatenate([full.geom_pos[ids], away]).astype(np.float32),
            "geom_quat": np.concatenate([full.geom_quat[ids], [[1.0, 0.0, 0.0, 0.0]]]).astype(np.float32),
            "geom_size": np.concatenate([full.geom_size[ids], [[0.1, 0.1, 0.1]]]).astype(np.float32),
        }
        extent = (np.abs(data.geom_xmat[ids].reshape(-1, 3, 3)) * full.geom_size[ids][:, None]).sum(-1)
        lower, upper = full.geom_pos[ids] - extent, full.geom_pos[ids] + extent
        reach = CELL / np.sqrt(2) + float(full.geom_size[foot_geoms(full, robot), 0].max()) + TRAVEL
        self.lower = lower[:, :2].min(0) - 2 * reach
        shape = np.ceil((upper[:, :2].max(0) + 2 * reach - self.lower) / CELL).astype(int) + 1
        self.table = np.full((*shape, SLOTS), len(ids), np.int32)
        count = np.zeros(shape, int)
        for box in np.argsort(-upper[:, 2], kind="stable"):
            first = np.maximum(np.floor((lower[box, :2] - reach - self.lower) / CELL).astype(int), 0)
            last = np.ceil((upper[box, :2] + reach - self.lower) / CELL).astype(int) + 1
            x, y = (np.arange(first[i], min(last[i], shape[i])) for i in (0, 1))
            gaps = (
                np.maximum(np.abs(c * CELL + self.lower[i] - full.geom_pos[ids[box], i]) - extent[box, i], 0.0)
                for i, c in ((0, x), (1, y))
            )
            gap_x, gap_y = gaps
            near = gap_x[:, None] ** 2 + gap_y**2 <= reach**2
            i, j = np.nonzero(near & (count[np.ix_(x, y)] < SLOTS))
            i, j = x[i], y[j]
            self.table[i, j, count[i, j]] = box
            count[i, j] += 1

    def near(self, xp: Namespace, feet: Any) -> Any:
        """Indices of the boxes within reach of feet at `[..., 2]` (m), `[..., SLOTS]`; see `boxes`."""
        cell = xp.round((feet - xp.asarray(self.lower, dtype=xp.float32)) / CELL).astype(xp.int32)
        i, j = (xp.clip(cell[..., k], 0, self.table.shape[k] - 1) for k in (0, 1))
        return xp.asarray(self.table)[i, j]

    def place(self, model: Any, feet: Any) -> Any:
        """The MJX model of one world with its boxes under feet at world `[legs, 2]`, m."""
        if not self.slots:
            return model
        index = self.near(jnp, feet).reshape(-1)
        moved = {
            name: getattr(model, name).at[self.slot_geoms].set(jnp.asarray(rows)[index])
            for name, rows in self.boxes.items()
        }
        return model.replace(**moved)

    def start_feet(self, xp: Namespace, qpos: Any) -> Any:
        """Where the feet about are at an episode's start: world x, y, m, `[..., legs, 2]`, from qpos `[..., 7 + J]`."""
        yaw = yaw_of(xp, qpos[..., 3:7])[..., None]
        ahead, left = xp.asarray(self.nominal[:, 0]), xp.asarray(self.nominal[:, 1])
        return qpos[..., None, :2] + xp.stack(to_world(ahead, left, yaw, xp), -1)


def _nominal_feet(model: mujoco.MjModel, robot: Robot, feet: np.ndarray) -> np.ndarray:
    """Feet of the standing robot relative to its base, x and y, m, float32 `[legs, 2]`."""
    data = mujoco.MjData(model)
    data.qpos[:] = [0, 0, robot.standing_height, 1, 0, 0, 0, *robot.default_pose]
    mujoco.mj_kinematics(model, data)
    return np.array(data.geom_xpos[feet, :2], np.float32)
