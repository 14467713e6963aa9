"""Two processes that share each batch train the student that one process trains, whatever counts in whose rows."""

from pathlib import Path

import pytest
import torch

from distill.core import sharding
from distill.core.errors import DistillError
from tests.distill.pairs import launched

HERE = Path(__file__).parent


def test_two_processes_train_the_student_that_one_trains(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    from two_processes import distiller, flat

    said = launched([HERE / "two_processes.py", tmp_path])
    one = distiller(tmp_path / "one")
    one.run()
    found = [torch.load(tmp_path / f"{what}_{rank}.pt") for what in ("whole", "again") for rank in (0, 1)]
    assert all(torch.equal(found[0], other) for other in found[1:]), "ranks alike; resumed bit for bit after a kill"
    assert (found[0] - flat(one)).abs().max() < 1e-9
    assert all("FOUND 7 True" in out for out in said), "the last step that both have saved; strays are noticed"
    assert all("LEFT True" in out for out in said), "no thread of theirs outlives the interpreter"
    with pytest.raises(DistillError, match="2 processes, not 1"):
        distiller(tmp_path / "whole", resume=True)


def test_a_student_that_is_spread_over_two_processes_is_the_one_that_one_trains(tmp_path, monkeypatch):
    """Each keeps a part of it; its checkpoints are whole, and it goes on from them bit for bit."""
    monkeypatch.syspath_prepend(str(HERE))
    from two_processes import distiller, flat

    said = launched([HERE / "sharded_processes.py", tmp_path], ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
    one = distiller(tmp_path / "one")
    one.run()
    found = [torch.load(tmp_path / f"{what}_{rank}.pt") for what in ("whole", "again") for rank in (0, 1)]
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert (found[0] - flat(one)).abs().max() < 1e-9
    words = [line.split() for out in said for line in out.splitlines() if line.startswith("FOUND")]
    assert [word[1] for word in words] == ["True", "True"] and all(int(word[4]) == 8 for word in words)
    parts, size = [int(word[2]) for word in words], int(words[0][3])
    assert sum(parts) == size and max(parts) < 0.7 * size, "no process has it all"
    with pytest.raises(DistillError):
        distiller(tmp_path / "whole", resume=True)


@pytest.mark.parametrize(
    "asked", [{"ACCELERATE_USE_DEEPSPEED": "true"}, {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}]
)
def test_other_ways_to_spread_a_student_are_refused(asked, monkeypatch):
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DistillError) as error:
        sharding.asked()
    assert len(str(error.value).splitlines()) == 1


def test_the_launchers_file_is_one_that_it_reads():
    config = pytest.importorskip("accelerate.commands.config.config_args")
    found = config.load_config_from_file(str(HERE.parents[2] / "launch" / "fsdp2.yaml"))
    assert found.distributed_type.value == "FSDP" and found.fsdp_config["fsdp_version"] == 2
