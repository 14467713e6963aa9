"""An mp4 of a run, where off-screen GL and ffmpeg exist; one sentence of explanation where they do not.

A process of its own renders: which GL MuJoCo uses is decided when it is imported, and GL that does not fit a computer
may raise anything, hang, or end the process. EGL is tried first, then OSMesa.
"""

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import mujoco
import numpy as np

from sim.children import environment, running
from sim.folders import replacing

FRAMES_PER_SECOND = 25
SIZE = (360, 640)
"""Height and width, pixels."""
BACKENDS = ("egl", "osmesa")
SILENT = 60.0
"""A rendering process that says nothing for so long is ended, s."""
ENCODER_FAILED = "ffmpeg failed"
SAYS_EVERY = 10
"""Frames after which it says that it goes on."""


def film(
    model: mujoco.MjModel,
    states: Sequence[np.ndarray],
    dt: float,
    path: Path,
    *,
    backends: Sequence[str] | None = None,
    silent: float = SILENT,
) -> str:
    """Renders `states` (qpos `[7 + J]` every `dt` s) into `path`; returns "" or a sentence on why there is no film.

    An earlier film is taken away before; one that is interrupted leaves none.

    Args:
      backends: values of MUJOCO_GL in the order in which they are tried; by default the one that is set and can draw
        off screen, then the others of `BACKENDS`.
      silent: see `SILENT`.
    """
    encoder = _encoder()
    if encoder is None:
        return "there is no ffmpeg on this machine, and the viz extra, which brings one, is not installed"
    if backends is None:
        asked = os.environ.get("MUJOCO_GL", "").strip().lower()
        backends = [*(name for name in BACKENDS if name == asked), *(name for name in BACKENDS if name != asked)]
    reasons: list[str] = []
    try:
        with tempfile.TemporaryDirectory(prefix="barkour-film-") as folder:
            path.unlink(missing_ok=True)
            scene, motion = Path(folder) / "scene.mjb", Path(folder) / "motion.npy"
            mujoco.mj_saveModel(model, str(scene), None)
            np.save(motion, np.asarray(states, float))
            for backend in backends:
                try:
                    with replacing(path) as partial:
                        _in_a_process(backend, [scene, motion, repr(dt), partial, encoder], silent)
                    return ""
                except _Unfilmed as problem:
                    if str(problem).startswith(ENCODER_FAILED):
                        return str(problem)
                    reasons.append(f"MUJOCO_GL={backend}: {problem}")
    except OSError as error:
        return f"it cannot be written: {error.strerror}"
    return f"off-screen rendering does not work here ({'; '.join(reasons)})"


class _Unfilmed(Exception):
    """Why there is no film."""


def _in_a_process(backend: str, arguments: Sequence[object], silent: float) -> None:
    """Renders with one kind of GL; raises `_Unfilmed` where that fails."""
    with running(
        [sys.executable, "-P", __file__, *map(str, arguments)], group=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, errors="replace", start_new_session=True,
        env=environment(MUJOCO_GL=backend, PYOPENGL_PLATFORM=backend),
    ) as process:  # and its encoder  # fmt: skip
        lines: queue.Queue[str] = queue.Queue()
        complaints: list[str] = []
        readers = [
            threading.Thread(target=_read, args=(process.stdout, lines.put), daemon=True),
            threading.Thread(target=_read, args=(process.stderr, complaints.append), daemon=True),
        ]
        for reader in readers:
            reader.start()
        said = ""
        try:
            while (line := lines.get(timeout=silent)) != "":
                said = line.strip()
            process.wait(timeout=silent)
        except (queue.Empty, subprocess.TimeoutExpired):
            raise _Unfilmed(f"nothing came for {silent:g} s") from None
    for reader in readers:
        reader.join(timeout=1.0)
    if process.returncode == 0 and said == "done":
        return
    if said.startswith("failed: "):
        raise _Unfilmed(said.removeprefix("failed: "))
    last = [line.strip() for line in complaints if line.strip()][-1:]
    raise _Unfilmed(last[0][:120] if last else f"the process ended with status {process.returncode}")


def _read(stream: IO[str], take: Callable[[str], object]) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in stream:
            take(line)
    take("")


def _encoder() -> str | None:
    from shutil import which

    found = which("ffmpeg")
    if found:
        return found
    with contextlib.suppress(Exception):
        import imageio_ffmpeg  # type: ignore[import-not-found]

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    return None


# --- in the process that renders --------------------------------------------------------------------------------------


def _render(model: mujoco.MjModel, states: np.ndarray, dt: float, path: Path, encoder: str) -> str:
    """Renders and encodes; returns "" or a complaint of the encoder's."""
    height, width = SIZE
    every = max(1, round(1 / FRAMES_PER_SECOND / dt))
    command = [
        encoder, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
        "-r", str(round(1 / dt / every)), "-i", "-", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "26",
        "-f", "mp4", str(path),
    ]  # fmt: skip
    data = mujoco.MjData(model)
    model.vis.quality.offsamples = 0  # software GL has no time for more
    renderer = mujoco.Renderer(model, height, width)
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        renderer.scene.flags[flag] = False
    camera = mujoco.MjvCamera()
    camera.distance, camera.azimuth, camera.elevation = 2.6, 70.0, -32.0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        try:
            for index, qpos in enumerate(states[::every]):
                data.qpos[:] = qpos
                mujoco.mj_forward(model, data)
                camera.lookat[:] = 0.9 * camera.lookat + 0.1 * qpos[:3] if camera.lookat.any() else qpos[:3]
                renderer.update_scene(data, camera)
                process.stdin.write(renderer.render().tobytes())
                if index % SAYS_EVERY == 0:
                    print(f"frame {index}", flush=True)
        except BrokenPipeError:
            if process.poll() is None:  # not the encoder: who asked for the film is gone
                process.kill()
                raise
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()
            complaint = process.stderr.read().decode(errors="replace").strip()
            with contextlib.suppress(Exception):
                renderer.close()
    if process.returncode:
        return f"{ENCODER_FAILED} ({complaint.splitlines()[-1][:120] if complaint else process.returncode})"
    return ""


def _main() -> int:
    scene, motion, dt, path, encoder = sys.argv[1:]
    try:
        model = mujoco.MjModel.from_binary_path(scene)
        problem = _render(model, np.load(motion, allow_pickle=False), float(dt), Path(path), encoder)
    except BrokenPipeError:
        return 1
    except Exception as error:  # GL libraries raise whatever they like, and may fail to print it without a context
        problem = type(error).__name__
        with contextlib.suppress(Exception):
            problem = " ".join(str(error).split())[:120] or problem
    print(f"failed: {problem}" if problem else "done", flush=True)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(_main())
