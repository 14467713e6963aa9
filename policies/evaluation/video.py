"""An mp4 of a run, where off-screen GL and ffmpeg exist; one sentence of explanation where they do not."""

import contextlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np

FRAMES_PER_SECOND = 25
SIZE = (360, 640)
"""Height and width, pixels."""


def film(model: mujoco.MjModel, states: Sequence[np.ndarray], dt: float, path: Path) -> str:
    """Renders `states` (qpos `[7 + J]` every `dt` s) into `path`; returns "" or a sentence on why there is no film."""
    backend = os.environ.get("MUJOCO_GL", "")
    if backend not in ("egl", "osmesa"):
        return "set MUJOCO_GL=egl or MUJOCO_GL=osmesa to record one"
    encoder = _encoder()
    if encoder is None:
        return "there is no ffmpeg on this machine, and the viz extra, which brings one, is not installed"
    try:
        return _render(model, states, dt, path, encoder)
    except Exception as error:  # GL libraries raise whatever they like: a missing film must not lose a run
        path.unlink(missing_ok=True)
        text = str(error).splitlines() if _printable(error) else []
        reason = text[0][:120] if text else type(error).__name__
        return f"off-screen rendering with MUJOCO_GL={backend} does not work here ({reason})"


def _printable(error: Exception) -> bool:
    try:
        return bool(str(error))
    except Exception:  # PyOpenGL's errors fail to print themselves without a context
        return False


def _encoder() -> str | None:
    from shutil import which

    found = which("ffmpeg")
    if found:
        return found
    with contextlib.suppress(Exception):
        import imageio_ffmpeg  # type: ignore[import-not-found]

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    return None


def _render(model: mujoco.MjModel, states: Sequence[np.ndarray], dt: float, path: Path, encoder: str) -> str:
    height, width = SIZE
    every = max(1, round(1 / FRAMES_PER_SECOND / dt))
    command = [
        encoder, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
        "-r", str(round(1 / dt / every)), "-i", "-", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "26", str(path),
    ]  # fmt: skip
    data = mujoco.MjData(model)
    samples, model.vis.quality.offsamples = int(model.vis.quality.offsamples), 0  # software GL has no time for more
    renderer = mujoco.Renderer(model, height, width)
    model.vis.quality.offsamples = samples
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        renderer.scene.flags[flag] = False
    camera = mujoco.MjvCamera()
    camera.distance, camera.azimuth, camera.elevation = 2.6, 70.0, -32.0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        try:
            for qpos in states[::every]:
                data.qpos[:] = qpos
                mujoco.mj_forward(model, data)
                camera.lookat[:] = 0.9 * camera.lookat + 0.1 * qpos[:3] if camera.lookat.any() else qpos[:3]
                renderer.update_scene(data, camera)
                process.stdin.write(renderer.render().tobytes())
        except BrokenPipeError:
            pass
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()
            complaint = process.stderr.read().decode(errors="replace").strip()
            with contextlib.suppress(Exception):
                renderer.close()
    if process.returncode:
        path.unlink(missing_ok=True)
        return f"ffmpeg failed ({complaint.splitlines()[-1][:120] if complaint else process.returncode})"
    return ""
