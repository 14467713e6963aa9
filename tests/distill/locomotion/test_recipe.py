"""`barkour distill locomotion` from end to end on next to nothing: it learns a little, resumes, exports, refuses."""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import barkour
from distill.core.shards import Shards
from distill.locomotion import recipe
from distill.locomotion.recipe import Options
from policies.bundle.reader import Bundle
from policies.bundle.shipped import bundle_file
from policies.evaluation.course_run import CourseWorlds
from policies.skills.library import load_skills
from policies.transformer import unpack
from policies.transformer_import import read_transformer
from sim.course.description import official
from sim.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
TINY = Options(
    rounds=1, first_rows=2000, rows=500, first_steps=60, steps=10, batch=32, width=32, layers=1, score_runs=2, seed=3
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distil")
    options = replace(TINY, run=folder / "run", out=folder / "g.onnx")
    return options, recipe.distil(options)


@pytest.mark.slow
def test_it_learns_and_writes_one_bundle_that_runs_the_course(made):
    options, result = made
    log = [json.loads(line) for line in (options.run / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in log if row["kind"] == "fit"]
    assert losses[-1] < 0.7 * losses[0]
    assert result["parity"] <= 1e-5 and result["steps"] == 70 and not result["interrupted"]
    bundle = Bundle.load(options.out)
    assert bundle.metadata.skill == "generalist" and bundle.gait.driven
    worlds = CourseWorlds(official(), load_skills(str(options.out)), [1, 2], randomize=True, time_limit=1.0)
    worlds.run()
    assert np.isfinite(worlds.robots.pose).all()


@pytest.mark.slow
def test_the_bundle_and_the_folder_say_how_it_was_made(made):
    options, result = made
    said = Bundle.load(options.out).metadata.provenance
    assert said["command"].startswith("barkour distill locomotion --seed 3 --rounds 1 --first-rows 2000")
    assert str(options.run) not in said["command"] and said["data"] == {
        key: result["card"][key] for key in ("episodes", "hours", "rows")
    }
    card = json.loads((options.run / "data" / "card.json").read_text())
    assert set(card["domains"]) == {"course", "walk", "climb", "jump"}
    assert card["domains"]["walk"]["on_policy_rows"] > 0
    assert json.loads((options.run / "summary.json").read_text())["bundle"] == str(options.out)
    assert (options.run / "curve.png").is_file()


@pytest.mark.slow
def test_exporting_a_finished_run_gives_the_same_file(made, tmp_path, capsys):
    options, _ = made
    assert barkour.main(["export", str(options.run), str(tmp_path / "again.onnx"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parity"] <= 1e-5
    assert (tmp_path / "again.onnx").read_bytes() == options.out.read_bytes()
    slower = ["export", str(options.run), str(tmp_path / "slower.onnx"), "--target-step", "0.5", "--json"]
    assert barkour.main(slower) == 0
    assert json.loads(capsys.readouterr().out)["target_step"] == 0.5
    one, other = Bundle.load(tmp_path / "slower.onnx"), Bundle.load(options.out)
    assert one.metadata == replace(other.metadata, target_step=0.5), "written once, not written anew"


@pytest.mark.slow
def test_a_run_that_was_killed_is_not_exported_but_resumed(made, tmp_path, capsys):
    options, _ = made
    killed = shutil.copytree(options.run, tmp_path / "killed", ignore=shutil.ignore_patterns("summary.json"))
    assert barkour.main(["export", str(killed), str(tmp_path / "out.onnx")]) == 2
    assert "--resume" in capsys.readouterr().err and not (tmp_path / "out.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes, message",
    [
        ({}, "--force"),
        ({"force": True}, "already holds a run"),
        ({"resume": True, "width": 64}, "begun with width 32, not 64"),
        ({"resume": True, "seed": 4}, "begun with seed 3, not 4"),
    ],
)
def test_a_folder_with_a_run_is_safe(made, changes, message):
    options, _ = made
    before = options.out.read_bytes()
    with pytest.raises(InputError, match=message):
        recipe.distil(replace(options, **changes))
    assert options.out.read_bytes() == before


def test_a_foreign_bundle_is_not_replaced_by_a_run_that_was_never_begun(tmp_path):
    (tmp_path / "mine.onnx").write_text("mine")
    with pytest.raises(InputError, match="--force"):
        recipe.distil(Options(out=tmp_path / "mine.onnx", run=tmp_path / "run", resume=True))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.onnx"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--teachers", "models/walk.onnx"], "no policy for climb, jump"),
        (["--teachers", "nobody"], "unknown policy 'nobody'"),
        (["--courses", "nowhere"], "nowhere"),
        (["--width", "30"], "width 30"),
        (["--first-steps", "0"], "--first-steps"),
        (["--rounds", "-1"], "--rounds"),
        (["--start-from", "models/walk.onnx"], "models/walk.onnx"),
        (["--start-from", "models/generalist.onnx", "--layers", "2"], "--layers"),
        (["--start-from", "models/generalist.onnx", "--context", "60"], "--context"),
        (["--precision", "fp8"], "precision"),
    ],
)
def test_bad_options_are_one_line_and_status_2(tmp_path, arguments, message, capsys):
    assert barkour.main(["distill", "locomotion", "--run", str(tmp_path / "run"), *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and "Traceback" not in said


def test_an_earlier_student_goes_on_as_it_was(tmp_path):
    start = bundle_file("generalist")
    options = replace(TINY, width=None, layers=None, start_from=start, run=tmp_path)
    _, student = recipe.build(options, recipe.simulated(options))
    shards = Shards(tmp_path / "data")
    student.begin(shards)  # experience changes nothing of how its inputs are scaled
    seen = np.random.default_rng(0).standard_normal((5, student.module.layout.size)).astype(np.float32)
    with torch.no_grad():
        found = student.module.newest(*unpack(student.module.layout, torch.from_numpy(seen))).numpy()
    np.testing.assert_allclose(found, Bundle.load(start)(seen), atol=1e-4)
    assert f"--start-from {start}" in recipe.command(options)


def test_the_command_of_a_run_asks_for_the_same_run():
    options = replace(TINY, nominal=True, courses=("official", "generated:3"), weak=12.0, context=5, target_step=0.5)
    asked = barkour.parse(shlex.split(recipe.command(options))[1:]).options
    assert asked == options


def test_sizes_that_are_not_asked_for_are_the_earlier_students_and_are_kept_with_the_run(tmp_path):
    start = read_transformer(bundle_file("generalist")).config
    whole = recipe.sized(replace(TINY, width=None, layers=None, start_from=bundle_file("generalist")))
    assert (whole.context, whole.width, whole.layers) == (start.context, start.width, start.layers)
    alone = recipe.sized(Options())
    assert (alone.context, alone.width, alone.layers) == (15, 128, 3)
    assert recipe.sized(replace(TINY, context=2)).context == 2


def test_an_earlier_student_goes_on_with_a_shorter_context(tmp_path):
    options = replace(TINY, width=128, layers=3, context=3, start_from=bundle_file("generalist"), run=tmp_path)
    _, student = recipe.build(options, recipe.simulated(options))
    assert student.module.config.context == 3 and student.module.layout.frames == (0, 1, 2)
    start = read_transformer(bundle_file("generalist"))
    torch.testing.assert_close(student.module.age, start.age[-3:])
    torch.testing.assert_close(student.module.frames.mean, start.frames.mean)


def test_distilling_needs_neither_jax_nor_brax():
    hide = "; ".join(f"sys.modules[{name!r}] = None" for name in ("jax", "brax", "flax", "optax"))
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {hide}; import distill.locomotion.recipe"], capture_output=True, text=True,
        cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_folder_without_a_run_is_no_run(tmp_path, capsys):
    (tmp_path / "options.json").write_text("{}")
    assert barkour.main(["export", str(tmp_path), str(tmp_path / "x.onnx")]) == 2
    assert "holds no run" in capsys.readouterr().err
