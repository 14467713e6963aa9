"""One call of the loop: a linear student of a linear teacher."""

import numpy as np
import pytest
import torch
from torch import nn

from distill.core.collect import Student
from distill.core.errors import DistillError
from distill.core.fit import fit
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.divergences import ForwardKL
from distill.core.signals import DenseLogits
from distill.core.tables import FixedDomain
from distill.core.teachers import LocalModel


class Linear(Student):
    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.module = nn.Linear(4, 3)

    def outputs(self, module, batch):
        return StudentOutput(logits=module(batch["x"]))


X = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
OPTIONS = {"steps": 40, "batch": 8, "seed": 0, "learning_rate": 0.1}


def taught() -> LocalModel:
    return LocalModel(Linear(9).module, lambda module, batch: DenseLogits(module(batch["x"])), DenseLogits, "linear")


@torch.no_grad()
def distance(student: Student) -> float:
    theirs, mine = (m(torch.from_numpy(X)).log_softmax(-1) for m in (Linear(9).module, student.module))
    return float((theirs.exp() * (theirs - mine)).sum(-1).mean())


def test_a_student_comes_near_its_teacher_and_nothing_is_left_behind(tmp_path):
    student = Linear(1)
    before = distance(student)
    summary = fit(student, ForwardKL(), taught(), [FixedDomain("x", {"x": X})], tmp_path / "run", rounds=2, **OPTIONS)
    assert distance(student) < 0.1 * before and not student.module.training
    assert [m["step"] for m in summary["measured"]] == [20, 40] and not (tmp_path / "run").exists()


def test_equal_seeds_give_equal_students_and_a_kept_run_is_taken_up(tmp_path):
    found = []
    for name in ("a", "b", "a"):
        student = Linear(1)
        fit(student, ForwardKL(), taught(), [FixedDomain("x", {"x": X})], tmp_path / name, keep=True, **OPTIONS)
        found.append(student.module.weight.detach().clone())
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2]), "the third had nothing left to do"


def test_the_best_rounds_parameters_are_given_back_where_asked(tmp_path):
    student, seen = Linear(1), []

    def evaluate(learner: Student) -> dict[str, float]:
        seen.append(learner.module.weight.detach().clone())
        return {"golden": -abs(len(seen) - 2)}

    fit(student, ForwardKL(), taught(), [FixedDomain("x", {"x": X})], tmp_path / "run", rounds=4, evaluate=evaluate,
        best=True, **OPTIONS)  # fmt: skip
    assert len(seen) == 4 and torch.equal(student.module.weight, seen[1])


def test_a_loss_that_is_not_finite_is_one_sentence(tmp_path):
    student = Linear(1)
    with torch.no_grad():
        student.module.weight.fill_(float("nan"))
    with pytest.raises(DistillError, match="loss is nan"):
        fit(student, ForwardKL(), taught(), [FixedDomain("x", {"x": X})], tmp_path / "run", **OPTIONS)


def test_a_run_with_dropout_goes_on_with_the_same_random_numbers(tmp_path):
    def dropping() -> Linear:
        student = Linear(1)
        student.module = nn.Sequential(nn.Dropout(0.5), student.module)
        return student

    def stop(learner: Student) -> dict[str, float]:
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"golden": 0.0}

    found, calls = [], []
    for evaluate in (None, stop, None):
        student, name = dropping(), "whole" if not found and not calls else "cut"
        options = {**OPTIONS, "rounds": 3, "keep": True, "evaluate": evaluate or (lambda learner: {"golden": 0.0})}
        try:
            fit(student, ForwardKL(), taught(), [FixedDomain("x", {"x": X})], tmp_path / name, **options)
            found.append(student.module[1].weight.detach().clone())
        except KeyboardInterrupt:
            torch.manual_seed(99)  # another process's random state
    assert len(calls) == 2 and torch.equal(*found)


@pytest.mark.parametrize("name", ["data", "best", "summary.json", "log.jsonl", "tensorboard"])
@pytest.mark.parametrize("keep", [False, True])
def test_a_folder_with_files_of_a_runs_names_is_no_place_for_one(name, keep, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")
    with pytest.raises(DistillError, match="would be lost"):
        fit(Linear(1), ForwardKL(), taught(), [FixedDomain("x", {"x": X})], tmp_path, keep=keep, **OPTIONS)
    assert [path.name for path in tmp_path.rglob("*")] == [name, "mine.txt"]


def test_what_else_lies_in_the_folder_stays(tmp_path):
    from distill.core.fit import MADE, remove

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.md").write_text("mine")
    for name in (*MADE, "rank_1"):
        (tmp_path / name).mkdir()
    remove(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    remove(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.md").is_file()
