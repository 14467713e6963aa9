"""A live 3-D view of a run in the browser: mjviser draws the model, this adds the path, the command, time and score.

It listens on this computer alone unless asked for another address. The `viz` extra brings mjviser.
"""

import copy
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from sim.errors import InputError
from sim.observation import yaw_of
from sim.planar import to_world

LOOPBACK = "127.0.0.1"
PORT, PORTS = 8080, 100
"""The first port that is tried, and how many."""
FRAMES_PER_SECOND = 25.0
LIFT = 0.02
"""The path is drawn so far above the ground, m."""
ABOVE = 0.25
"""The command is drawn so far above the base, m."""
WORLD = "/fixed_bodies"
"""mjviser's frame of the world: it moves so that the robot stays in the middle."""
PATH_COLOR, COMMAND_COLOR = (40, 130, 230), (230, 60, 40)


def check_extra() -> None:
    """Raises `InputError` where the viz extra is missing."""
    try:
        import mjviser as mjviser
    except ImportError as error:
        raise InputError("--watch needs the viz extra: pip install 'barkour[viz]'") from error


def _free_port(address: str, first: int) -> int:
    """The first free port from `first` on, any free one for 0; viser itself would wait for ever where there is none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    problem: OSError | None = None
    for port in range(first, first + PORTS if first else 1):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind((address, port))
                return int(trial.getsockname()[1])
        except OSError as error:
            problem = error
    reason = problem.strerror if problem else "no port is left"
    raise InputError(f"the live view cannot listen on {address}: {reason}")


class Viewer:
    """Serves the scene and moves it in real time as `show` is called."""

    def __init__(self, model: mujoco.MjModel, way: np.ndarray, *, listen: str = LOOPBACK, port: int = PORT) -> None:
        """`way` are the points of the path on the ground, m `[N, 3]`; the next free port is taken from `port` on.

        Raises:
          InputError: the viz extra is missing, or nothing can listen on that IP address.
        """
        check_extra()
        import viser
        from mjviser import ViserMujocoScene

        self.model, self.listen = copy.copy(model), listen  # mjviser changes how a model is shown
        self.data = mujoco.MjData(self.model)
        self.server: Any = viser.ViserServer(host=self.listen, port=_free_port(self.listen, port), verbose=False)
        self.server.gui.configure_theme(show_share_button=False)  # it would send the view through a public server
        self.scene = ViserMujocoScene(self.server, self.model, num_envs=1)
        self.scene.geom_groups_visible = [True] * 6
        self.scene.site_groups_visible = [False] * 6
        self.scene.rebuild_visual_handles()
        self.text = self.server.gui.add_markdown("waiting")
        self.scene.create_scene_gui(camera_distance=2.5, camera_azimuth=110.0, camera_elevation=30.0)
        raised = np.asarray(way, float) + (0.0, 0.0, LIFT)
        self.path = self.server.scene.add_line_segments(
            f"{WORLD}/path", np.stack([raised[:-1], raised[1:]], 1), PATH_COLOR, thickness=0.02
        )
        self.command: Any = None
        self.started: float | None = None
        self.drawn = -1.0

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        host = f"[{self.listen}]" if ":" in self.listen else self.listen
        return f"http://{'localhost' if self.listen == LOOPBACK else host}:{self.server.get_port()}"

    def show(self, qpos: np.ndarray, seconds: float, command: Sequence[float], said: dict[str, Any]) -> None:
        """Draws the robot in state `qpos` `[7 + J]` when the wall clock reaches `seconds` of the run.

        Args:
          command: forward, leftward velocity (m/s) and yaw rate (rad/s) that are asked for.
          said: what stands beside the scene: name -> value.
        """
        if self.started is None:
            print(f"watch at {self.address} (the run starts when a browser connects)", file=sys.stderr, flush=True)
            while not self.server.get_clients():
                time.sleep(0.1)
            self.started = time.monotonic() - seconds
        if seconds - self.drawn < 1 / FRAMES_PER_SECOND:
            return
        self.drawn = seconds
        time.sleep(max(0.0, self.started + seconds - time.monotonic()))
        self.draw(qpos, seconds, command, said)

    def draw(self, qpos: np.ndarray, seconds: float, command: Sequence[float], said: dict[str, Any]) -> None:
        """Draws at once; see `show`."""
        self.data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, self.data)
        with self.server.atomic():
            self.scene.update_from_mjdata(self.data)
            self._point(qpos, command)
            lines = [f"**time** {seconds:.2f} s", *(f"**{name}** {value}" for name, value in said.items())]
            self.text.content = "\n\n".join(lines)

    def _point(self, qpos: np.ndarray, command: Sequence[float]) -> None:
        """The command as an arrow above the base, 0.3 m for 1 m/s."""
        heading = yaw_of(np, np.asarray(qpos[3:7], float))
        x, y = to_world(np.array(command[0]), np.array(command[1]), heading)
        begin = np.asarray(qpos[:3], float) + (0.0, 0.0, ABOVE)
        points = np.stack([begin, begin + 0.3 * np.array([float(x), float(y), 0.0])])[None]
        if self.command is None:
            self.command = self.server.scene.add_arrows(
                f"{WORLD}/command", points, COMMAND_COLOR, shaft_radius=0.012, head_radius=0.03, head_length=0.06
            )
        self.command.points = points

    def close(self) -> None:
        """Ends the server."""
        self.server.stop()
