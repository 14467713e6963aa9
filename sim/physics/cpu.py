"""MuJoCo's C engine on threads through `mujoco.batch.Batch`."""

import mujoco
import numpy as np
from mujoco.batch import Batch

from sim.errors import InputError
from sim.physics.base import PhysicsReading
from sim.physics.motor import torque_range


class CpuPhysics:
    """Worlds of one scene on a thread pool; results do not depend on the number of threads."""

    def __init__(self, model: mujoco.MjModel, worlds: int, threads: int = 0) -> None:
        """`threads` 0 takes every core."""
        if worlds < 1:
            raise InputError(f"physics needs at least 1 world, got {worlds}")
        self.model = model
        self.worlds = worlds
        self.timestep = float(model.opt.timestep)
        self.batch = Batch(model, worlds, threads)
        self.qpos, self.qvel = self.batch.bind("qpos"), self.batch.bind("qvel")
        self.ctrl, self.warmstart = self.batch.bind("ctrl"), self.batch.bind("qacc_warmstart")
        self.time, self.sensordata = self.batch.bind("time"), self.batch.bind("sensordata")
        self.force = self.batch.bind("actuator_force")
        self.poles = self.batch.bind("mocap_pos") if model.nmocap else np.zeros((worlds, 0, 3))
        """Where moving poles stand, m `[worlds, poles, 3]`; may be written."""
        self._motors: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def reset(self, mask: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """See `Physics.reset`."""
        ids = np.flatnonzero(mask)
        if not len(ids):
            return
        self.qpos[ids], self.qvel[ids] = qpos[ids], qvel[ids]
        self.ctrl[ids], self.warmstart[ids], self.time[ids] = qpos[ids, 7:], 0.0, 0.0
        self.batch.forward(ids)

    def step(self, targets: np.ndarray, substeps: int, previous: np.ndarray, delay: np.ndarray) -> None:
        """See `Physics.step`. One call a substep: motors lose torque with speed within a control step."""
        self.ctrl[:] = previous
        changes = None if previous is targets else np.minimum(np.maximum(delay, 0), substeps)
        for k in range(substeps + 1):
            if changes is not None:
                now = changes == k
                self.ctrl[now] = targets[now]
            if k < substeps:
                self._limit_torque()
                self.batch.step(nstep=1)

    def motors(self, peak: np.ndarray, no_load_speed: np.ndarray) -> None:
        """Limits torques as motors do (`motor`): `peak` N m and `no_load_speed` rad/s, both `[worlds, J]`."""
        self._motors = (self.batch.expand("actuator_forcerange"), np.array(peak), np.array(no_load_speed))
        self._limit_torque()
        self.batch.set_const()

    def _limit_torque(self) -> None:
        if self._motors is not None:
            limits, peak, no_load_speed = self._motors
            limits[:, :, 0], limits[:, :, 1] = torque_range(np, peak, no_load_speed, self.qvel[:, 6:])

    def read(self) -> PhysicsReading:
        """See `Physics.read`."""
        return PhysicsReading(*(np.array(a, np.float32) for a in (self.qpos, self.qvel, self.sensordata)))

    def shift(self, offset: np.ndarray) -> None:
        """Moves the base of each world by `offset` `[worlds, 2]` (m) without touching anything else."""
        self.qpos[:, :2] += offset

    def rest(self, worlds: np.ndarray) -> None:
        """See `WholePhysics.rest`; here all worlds go on, as the batch steps them together."""

    def push(self, velocity: np.ndarray) -> None:
        """Adds `velocity` `[worlds, 2]` (m/s, world frame) to the base: a kick."""
        self.qvel[:, :2] += velocity

    def randomize(self, fields: dict[str, np.ndarray]) -> None:
        """See `Physics.randomize`. Derived constants follow (`mj_setConst`)."""
        for name, values in fields.items():
            field = self.batch.expand(name)
            if field.shape != np.shape(values):
                raise InputError(f"model field {name} needs shape {field.shape}, got {np.shape(values)}")
            field[...] = values
        self.batch.set_const()

    def save(self) -> dict[str, np.ndarray]:
        """Everything that decides the future, for a checkpoint; see `restore`."""
        return {"state": np.array(self.batch.state)}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Continues exactly where `save` was called (model fields are the caller's to randomise again)."""
        if saved["state"].shape != self.batch.state.shape:
            raise InputError(f"saved physics has shape {saved['state'].shape}, this one {self.batch.state.shape}")
        self.batch.state[:] = saved["state"]
        self.batch.forward()
        self.batch.state[:] = saved["state"]
