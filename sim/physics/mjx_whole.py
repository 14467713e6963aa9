"""MJX with what judging a whole run takes: the full scene, contacts as they are felt, and the motors' torques.

`sim.physics.mjx` trains policies on scenes in which feet alone collide. Here every pair that may touch is tested at
every step, and the deepest contacts are solved for, as many as the scene has places for (`sim.course.scene`): on a CPU
a course takes seconds of computing for a second of running, and a minute or two to compile.
Importing this module needs jax and mujoco-mjx (`pip install 'barkour[train]'`).
"""

from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjx

from sim.errors import InputError
from sim.physics.mjx import Engine, MjxPhysics, WorldState, copy_of
from sim.physics.motor import servo_torque

MOST_PAIRS = 1024
"""Pairs of geoms that may touch in a scene that is judged and not learned in."""


class WholeMjx:
    """Worlds of one scene in MJX with the interface of `WholePhysics`."""

    def __init__(self, model: mujoco.MjModel, worlds: int) -> None:
        self.model, self.worlds = model, worlds
        self.timestep = float(model.opt.timestep)
        # MJX cannot count the contacts of a body tree: such sensors are filled in here, and are clocks to it
        plain = copy_of(model)
        self._counts = _contact_sensors(model)
        for sensor in np.flatnonzero(model.sensor_type == mujoco.mjtSensor.mjSENS_CONTACT).tolist():
            plain.sensor_type[sensor] = mujoco.mjtSensor.mjSENS_CLOCK
            plain.sensor_objtype[sensor] = plain.sensor_reftype[sensor] = mujoco.mjtObj.mjOBJ_UNKNOWN
            plain.sensor_objid[sensor] = plain.sensor_refid[sensor] = -1
            plain.sensor_needstage[sensor] = mujoco.mjtStage.mjSTAGE_POS
            plain.sensor_intprm[sensor] = 0
        self._mjx = MjxPhysics(plain, worlds, most_pairs=MOST_PAIRS)
        self._law = {name: np.asarray(getattr(model, f"actuator_{name}"))[None] for name in LAW}
        self._motors: tuple[np.ndarray, np.ndarray] | None = None
        self._felt = jax.jit(self._touching)
        self.qpos, self.qvel = np.tile(model.qpos0, (worlds, 1)), np.zeros((worlds, model.nv))
        self.sensordata, self.force = np.zeros((worlds, model.nsensordata)), np.zeros((worlds, model.nu))

    def _touching(self, fields: Any, state: WorldState) -> Any:
        """Which geoms touch anything, bool `[worlds, ngeom]`."""
        engine: Engine = self._mjx.engine

        def world(fields: Any, state: WorldState) -> Any:
            model = engine.base.replace(**fields)
            data = mjx.collision(model, mjx.kinematics(model, engine.data.replace(qpos=state.qpos)))
            found: Any = data._impl.contact
            count = jnp.zeros(self.model.ngeom, jnp.int32)
            touch = (found.dist < 0).astype(jnp.int32)
            return count.at[found.geom[:, 0]].add(touch).at[found.geom[:, 1]].add(touch)

        return jax.vmap(world)(fields, state)

    def _follow(self) -> None:
        """Takes over what MJX has."""
        state = jax.device_get(self._mjx.state)
        self.qpos[:], self.qvel[:], self.sensordata[:] = state.qpos, state.qvel, state.sensors
        touched = np.asarray(self._felt(self._mjx.fields, self._mjx.state))
        for at, geom in self._counts:
            self.sensordata[:, at] = touched[:, geom]

    def reset(self, mask: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """See `Physics.reset`."""
        if np.any(mask):
            self._mjx.reset(mask, qpos, qvel)
            self._follow()

    def step(self, targets: np.ndarray, substeps: int, previous: np.ndarray, delay: np.ndarray) -> None:
        """See `Physics.step`."""
        law = self._law
        for k in range(substeps):
            wanted = np.where((np.asarray(delay) > k)[:, None], previous, targets)
            self.force[:] = servo_torque(
                law["gainprm"], law["biasprm"], law["forcerange"], wanted, self.qpos[:, 7:], self.qvel[:, 6:],
                self._motors,
            )  # fmt: skip
            self._mjx.step(wanted, 1, wanted, np.zeros(self.worlds, np.int32))
            self._follow()

    def randomize(self, fields: dict[str, np.ndarray]) -> None:
        """See `Physics.randomize`."""
        self._mjx.randomize(fields)
        self._law |= {name: np.asarray(fields[f"actuator_{name}"]) for name in LAW if f"actuator_{name}" in fields}

    def motors(self, peak: np.ndarray, no_load_speed: np.ndarray) -> None:
        """See `Physics.motors`."""
        self._motors = np.asarray(peak, float), np.asarray(no_load_speed, float)
        self._mjx.motors(peak, no_load_speed)

    def read(self) -> Any:
        """See `Physics.read`."""
        return self._mjx.read()._replace(sensors=np.array(self.sensordata, np.float32))

    def rest(self, worlds: np.ndarray) -> None:
        """See `WholePhysics.rest`; here all worlds go on, as they are one computation."""

    def push(self, velocity: np.ndarray) -> None:
        """Adds `velocity` `[worlds, 2]` (m/s, world frame) to the base: a kick."""
        self._mjx.push(velocity)
        self.qvel[:, :2] += velocity


LAW = ("gainprm", "biasprm", "forcerange")


def _contact_sensors(model: mujoco.MjModel) -> list[tuple[int, int]]:
    """Where each contact sensor stands in `sensordata`, and the geom whose contacts it counts."""
    out = []
    for sensor in np.flatnonzero(model.sensor_type == mujoco.mjtSensor.mjSENS_CONTACT).tolist():
        if model.sensor_objtype[sensor] != mujoco.mjtObj.mjOBJ_GEOM:
            raise InputError(f"the contact sensor '{model.sensor(sensor).name}' is not of a geom")
        out.append((int(model.sensor_adr[sensor]), int(model.sensor_objid[sensor])))
    return out
