"""Films: made with whatever off-screen GL there is, and one sentence where there is none."""

import os
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from policies.evaluation import video
from policies.evaluation.video import BACKENDS, film

BOX = """<mujoco><worldbody><light pos="0 0 3"/><geom type="plane" size="3 3 .1" rgba=".2 .2 .8 1"/>
<body pos="0 0 .3"><freejoint/><geom type="box" size=".2 .1 .1" rgba="1 0 0 1"/></body></worldbody></mujoco>"""


@pytest.fixture(scope="module")
def scene() -> tuple[mujoco.MjModel, list[np.ndarray]]:
    """A red box that slides over a blue floor, 0.4 s."""
    model = mujoco.MjModel.from_xml_string(BOX)
    return model, [np.array([0.02 * k, 0, 0.3, 1, 0, 0, 0]) for k in range(20)]


@pytest.fixture
def encoder(monkeypatch, tmp_path) -> Path:
    """In place of ffmpeg: a program that keeps the frames."""
    program = tmp_path / "encoder"
    program.write_text(f"#!{sys.executable}\nimport sys\nopen(sys.argv[-1], 'wb').write(sys.stdin.buffer.read())\n")
    program.chmod(0o755)
    monkeypatch.setattr(video, "_encoder", lambda: str(program))
    return program


def test_a_film_shows_what_moved_without_a_word_about_gl(scene, encoder, tmp_path, monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    problem = film(*scene, 0.02, tmp_path / "run.mp4")
    if problem:  # a computer without EGL and without OSMesa: then both are named
        assert all(f"MUJOCO_GL={name}" in problem for name in BACKENDS) and "\n" not in problem
        pytest.skip("there is no off-screen GL on this machine")
    frames = np.frombuffer((tmp_path / "run.mp4").read_bytes(), np.uint8).reshape(-1, *video.SIZE, 3).astype(int)
    assert len(frames) == 10
    red = (frames[..., 0] > 100) & (frames[..., 1] < 80) & (frames[..., 2] < 80)
    blue = (frames[..., 2] > frames[..., 0] + 20).sum()
    assert red.sum(axis=(1, 2)).min() > 500 and blue > red.sum()
    places = [np.argwhere(picture).mean(axis=0) for picture in red]
    assert np.linalg.norm(places[-1] - places[0]) > 5, "it moves"


def test_what_does_not_work_is_passed_over(scene, encoder, tmp_path):
    problem = film(*scene, 0.02, tmp_path / "run.mp4", backends=["nonsense", *BACKENDS])
    assert (tmp_path / "run.mp4").exists() != bool(problem)
    problem = film(*scene, 0.02, tmp_path / "no.mp4", backends=["nonsense", "disable"])
    assert "MUJOCO_GL=nonsense" in problem and "MUJOCO_GL=disable" in problem and "\n" not in problem
    assert not (tmp_path / "no.mp4").exists()


def test_gl_that_hangs_is_ended(scene, encoder, tmp_path, monkeypatch):
    """With an interpreter that never says a word, and has a child that would go on."""
    noted = tmp_path / "pids"
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nsleep 600 & echo $! $$ > {noted}\nwait\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    problem = film(*scene, 0.02, tmp_path / "run.mp4", backends=["egl"], silent=1.0)
    assert "MUJOCO_GL=egl" in problem
    for pid in noted.read_text().split():
        state = Path(f"/proc/{pid}/stat")
        assert not state.exists() or state.read_text().split()[2] == "Z"


def test_an_encoder_that_fails_is_said(scene, encoder, tmp_path):
    encoder.write_text("#!/bin/sh\necho no such codec >&2\nexit 3\n")
    problem = film(*scene, 0.02, tmp_path / "run.mp4")
    assert problem and "\n" not in problem and not (tmp_path / "run.mp4").exists()


def test_without_an_encoder_it_is_one_sentence(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_encoder", lambda: None)
    assert "ffmpeg" in film(*scene, 0.02, tmp_path / "run.mp4")


def test_the_backend_that_is_set_is_tried_first(scene, encoder, tmp_path, monkeypatch):
    tried: list[str] = []

    def fails(backend, *_):
        tried.append(backend)
        raise video._Unfilmed("no")

    monkeypatch.setattr(video, "_in_a_process", fails)
    for value, order in (("OSMESA", ["osmesa", "egl"]), ("glfw", ["egl", "osmesa"]), ("", ["egl", "osmesa"])):
        monkeypatch.setitem(os.environ, "MUJOCO_GL", value)
        tried.clear()
        assert film(*scene, 0.02, tmp_path / "run.mp4") and tried == order


def test_an_interrupted_film_leaves_no_half_of_one(scene, encoder, tmp_path, monkeypatch):
    """With an interpreter that asks its parent to end when it has begun to write."""
    noted, out = tmp_path / "pids", tmp_path / "out"
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho $$ > {noted}\necho half > "$6"\nkill -INT $PPID\nsleep 600\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        film(*scene, 0.02, out / "run.mp4", backends=["egl"])
    assert not [*out.iterdir()] and not Path(f"/proc/{noted.read_text().strip()}").exists()


def test_who_is_interrupted_while_the_renderer_starts_ends_it(scene, encoder, tmp_path, interrupted_start):
    with pytest.raises(KeyboardInterrupt):
        film(*scene, 0.02, tmp_path / "run.mp4")
    assert interrupted_start and not [each for each in interrupted_start if each.poll() is None]
