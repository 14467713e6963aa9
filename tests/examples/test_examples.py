"""Every example as a reader starts it: a process of its own, with budgets of seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from policies.bundle.reader import Bundle
from policies.evaluation.course_run import run
from policies.evaluation.options import CourseRunOptions
from policies.learning.options import TrainOptions
from policies.learning.train import Run
from sim.course.files import load

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def start(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """`python COMMAND`, with this checkout's packages."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_read_in_one_sitting(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 100
    assert "import pickle" not in lines
    said = start(path, "--help")
    assert said.returncode == 0, said.stderr
    assert f"python examples/{path.name}" in said.stdout


def test_examples_are_no_package() -> None:
    assert not (EXAMPLES / "__init__.py").exists()


@pytest.mark.slow
def test_a_course_of_ones_own_is_run_as_barkour_run_runs_its_file(tmp_path: Path) -> None:
    file = tmp_path / "jump.yaml"
    done = start(EXAMPLES / "custom_course.py", "--distance", "2.8", "--file", file, "--json")
    assert done.returncode == 0, done.stderr
    course = load(file)
    assert course.board is not None and course.board.center == (3.8, 0.0)
    said, expected = json.loads(done.stdout), run(CourseRunOptions(policy="generalist", course=str(file))).to_dict()
    assert said == expected
    assert said["obstacles"]["start table"]["completed"], "the policy did not even leave the table"


def test_a_course_that_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    done = start(EXAMPLES / "custom_course.py", "--distance", "-0.5", "--file", tmp_path / "jump.yaml")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "overlap" in done.stderr
    assert not (tmp_path / "jump.yaml").exists()


@pytest.mark.parametrize(
    ("file", "package", "advice"),
    [("sb3.py", "stable_baselines3", "stable-baselines3"), ("rsl_rl_walk.py", "rsl_rl.runners", "'barkour[rsl]'")],
)
def test_without_its_library_an_example_says_so_in_one_line(file: str, package: str, advice: str) -> None:
    hidden = f"import runpy, sys; sys.modules['{package}'] = None; sys.argv = sys.argv[1:]; "
    done = start("-c", hidden + "runpy.run_path(sys.argv[0], run_name='__main__')", EXAMPLES / file)
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and f"pip install {advice}" in done.stderr


@pytest.mark.slow
def test_the_loop_by_hand_is_the_one_of_barkour_train(tmp_path: Path) -> None:
    """Iteration for iteration the rewards of the package's own run, which other tests watch learn."""
    file = tmp_path / "walk.onnx"
    done = start(EXAMPLES / "train_by_hand.py", "--iterations", "3", "--worlds", "12", "--seed", "3", "--onnx", file)
    words = [line.split() for line in done.stdout.splitlines()]
    printed = [float(line[2]) for line in words if line[1:2] == ["reward"] and line[0].isdigit()]
    package = Run(TrainOptions(skill="walk", worlds=12, seed=3, out=tmp_path / "run", steps=3 * 12 * 24))
    assert printed == pytest.approx([package.iterate()["reward"] for _ in range(3)], abs=2e-3), done.stderr
    assert done.returncode == (0 if printed[-1] > printed[0] else 1)
    assert Bundle.load(file).describe()["skill"] == "walk"


@pytest.mark.slow
@pytest.mark.parametrize("half", ["robot", "language"])
def test_a_student_by_hand_comes_nearer_to_its_teacher_where_it_acts_itself(half: str) -> None:
    done = start(EXAMPLES / "distil_by_hand.py", half, "--rounds", "1")
    assert done.returncode == 0, done.stderr
    first, last = map(float, done.stdout.split(":")[1].split())
    assert last < 0.9 * first
