"""A live 3-D view of a run in the browser, with viser (the `viz` extra)."""

import sys
import time
from typing import Any

import mujoco
import numpy as np

from sim.errors import InputError

PORT = 8080
FRAMES_PER_SECOND = 25.0
PLANE = 12.0
"""Edge of the floor that is drawn, m."""


class Viewer:
    """Serves the scene's geoms and moves them in real time as `show` is called."""

    def __init__(self, model: mujoco.MjModel, port: int = PORT) -> None:
        """Raises `InputError` without viser."""
        try:
            import viser
        except ImportError as error:
            raise InputError("--watch needs the viz extra: pip install 'barkour[viz]'") from error
        self.model, self.data = model, mujoco.MjData(model)
        self.server: Any = viser.ViserServer(port=port, verbose=False)
        mujoco.mj_forward(model, self.data)
        self.handles = {i: handle for i in range(model.ngeom) if (handle := self._add(i)) is not None}
        self.moving = [i for i in self.handles if model.body_weldid[model.geom_bodyid[i]] != 0]
        self.started: float | None = None
        self.drawn = -1.0

    def _add(self, i: int) -> Any:
        model, scene = self.model, self.server.scene
        kind, size = model.geom_type[i], model.geom_size[i]
        name = f"/geoms/{i}_{model.geom(i).name or 'geom'}".replace(" ", "_")
        color = tuple(int(255 * c) for c in model.geom_rgba[i, :3])
        place = {"position": tuple(self.data.geom_xpos[i]), "wxyz": tuple(self._quat(i))}
        if kind == mujoco.mjtGeom.mjGEOM_PLANE:
            return scene.add_box(name, color=color, dimensions=(PLANE, PLANE, 0.002), position=(2.5, -2.5, -0.002))
        if kind == mujoco.mjtGeom.mjGEOM_BOX:
            return scene.add_box(name, color=color, dimensions=tuple(2 * size), **place)
        if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
            return scene.add_icosphere(name, radius=float(size[0]), color=color, **place)
        if kind in (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER):
            radius, height = float(size[0]), 2 * float(size[1])
            return scene.add_cylinder(name, radius=radius, height=height, color=color, **place)
        return None

    def _quat(self, i: int) -> np.ndarray:
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, self.data.geom_xmat[i])
        return quat

    def show(self, qpos: np.ndarray, seconds: float) -> None:
        """Draws the robot in state `qpos` `[7 + J]` when the wall clock reaches `seconds` of the run."""
        if self.started is None:
            place = f"http://localhost:{self.server.get_port()}"
            print(f"watch at {place} (the run starts when a browser connects)", file=sys.stderr, flush=True)
            while not self.server.get_clients():
                time.sleep(0.1)
            self.started = time.monotonic() - seconds
        if seconds - self.drawn < 1 / FRAMES_PER_SECOND:
            return
        self.drawn = seconds
        time.sleep(max(0.0, self.started + seconds - time.monotonic()))
        self.data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, self.data)
        with self.server.atomic():
            for i in self.moving:
                self.handles[i].position = tuple(self.data.geom_xpos[i])
                self.handles[i].wxyz = tuple(self._quat(i))
