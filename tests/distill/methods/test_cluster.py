"""Seeds as jobs of a cluster, tried with the executors that submitit has for one machine."""

import json
import sys
from pathlib import Path

import pytest

from distill.core.errors import DistillError
from distill.core.folders import hold
from distill.methods import cluster
from distill.methods.options import RecipeRunOptions, SweepOptions
from sim.errors import InputError


def jobs(folder: Path, *numbers: int):
    return [(folder / f"seed_{n}", (folder / f"seed_{n}", n)) for n in numbers]


def work():
    """What a seed does, less the training; made here so that it travels by value: a job knows no test module."""

    def squares(folder, number):
        if number < 0:
            from distill.core.errors import DistillError

            raise DistillError(f"{number} is no seed")
        (folder / "found.json").write_text(str(number**2))

    return squares


def test_parameters_are_submitits_own_or_slurms():
    found = cluster.parameters(["partition=long", "timeout_min=5", "mem_gb=2"], at_once=3)
    assert found["slurm_partition"] == "long" and found["timeout_min"] == 5 and found["slurm_array_parallelism"] == 3
    for bad in ("partition", "=x", "a b=c", "x="):
        with pytest.raises(DistillError) as error:
            cluster.parameters([bad])
        assert len(str(error.value).splitlines()) == 1


def test_what_is_not_here_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    for missing in (False, True):
        if missing:
            monkeypatch.setitem(sys.modules, "submitit", None)
        with pytest.raises(DistillError) as error:
            cluster.executor(tmp_path / "jobs")
        assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "jobs").exists()


def test_options_that_would_be_ignored_are_refused():
    assert RecipeRunOptions(name="ddk", pool="slurm", slurm=("partition=x",)).workers == 0
    for bad in ({"slurm": ("partition=x",)}, {"pool": "slurm", "preset": "real"}, {"pool": "slurm", "plan": True}):
        with pytest.raises(InputError):
            RecipeRunOptions(name="ddk", **bad)
        with pytest.raises(InputError):
            SweepOptions(names=("ddk",), **bad)


def test_jobs_write_to_their_folders_and_say_what_went_wrong(tmp_path):
    pytest.importorskip("submitit")
    shown: list[int] = []
    through = cluster.executor(tmp_path / "jobs", kind="debug")
    cluster.side_by_side(work(), jobs(tmp_path, 2, 3), through, lambda: shown.append(0))
    assert [json.loads((tmp_path / f"seed_{n}" / "found.json").read_text()) for n in (2, 3)] == [4, 9] and shown
    with pytest.raises(DistillError, match="no seed"):
        cluster.side_by_side(work(), jobs(tmp_path, -1), through, lambda: None)
    with pytest.raises(DistillError):
        cluster.executor(tmp_path / "jobs", kind="nowhere")


def test_jobs_run_in_processes_of_their_own(tmp_path):
    pytest.importorskip("submitit")
    through = cluster.executor(tmp_path / "jobs", ["timeout_min=10"], kind="local")
    busy = hold(tmp_path / "seed_5")  # as by a job of an earlier command
    try:
        with pytest.raises(DistillError, match="another process"):
            cluster.side_by_side(work(), jobs(tmp_path, 5), through, lambda: None)
    finally:
        busy.release()
    cluster.side_by_side(work(), jobs(tmp_path, 5), through, lambda: None)
    assert json.loads((tmp_path / "seed_5" / "found.json").read_text()) == 25
