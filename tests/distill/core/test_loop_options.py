"""What the loop offers to runs of seconds: no logs, domains without news, learned objectives, mixtures."""

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from distill.core.collect import Experience, Student
from distill.core.errors import DistillError
from distill.core.loop import Distiller, LoopConfig
from distill.core.mixture import Mixture
from distill.core.objectives.base import StudentOutput, WeightedSum
from distill.core.objectives.features import HiddenStateMatching
from distill.core.signals import HiddenStates
from distill.core.teachers import Teachers

CONFIG = LoopConfig(rounds=2, first_steps=10, steps=10, batch=8, held_out=8, learning_rate=1e-2, warmup=0, light=True)


class Net(Student):
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(3, 2)

    def outputs(self, module, batch):
        return StudentOutput(hidden=(module(batch["x"])[:, None],))


class Wide:
    kind = HiddenStates

    def label(self, batch):
        return HiddenStates((batch["y"][:, None],))

    def fingerprint(self):
        return "00"


class Rows:
    def __init__(self, name: str, ratios: list[float]) -> None:
        self.name, self.ratios, self.asked = name, ratios, 0

    def collect(self, student, plan):
        self.asked += 1
        measured = {"ratio": self.ratios[plan.round]} if self.ratios else {}
        if plan.round:
            return Experience({}, [], measured)
        x = np.random.default_rng(1).standard_normal((64, 3)).astype(np.float32)
        return Experience({"x": x, "y": np.concatenate([x, x[:, :1]], 1)}, [1] * 64, measured)


class Any:
    def sample(self, shards, rng, counts, held_out=False):
        parts = {"x": [], "y": []}
        for shard in shards.shards:
            rows = rng.integers(0, 64, counts[shard.about["domain"]])
            for name, values in parts.items():
                values.append(shards.array(shard, name)[rows])
        return {name: torch.from_numpy(np.concatenate(values)) for name, values in parts.items()}


def distiller(folder, resume=False, ratios=(), **options):
    objective = HiddenStateMatching({0: 0}, widths=(2, 4), seed=3)
    collectors = [Rows("a", list(ratios and ratios[0])), Rows("b", list(ratios and ratios[1]))]
    quiet = Console(quiet=True)
    return Distiller(Net(), objective, Wide(), collectors, Any(), folder, CONFIG, None, resume, quiet, **options)


def test_a_light_run_learns_without_logs_and_asks_every_domain_in_every_round(tmp_path):
    loop = distiller(tmp_path)
    summary = loop.run()
    assert summary["rounds"] == 3 and summary["proxy"][-1] < summary["proxy"][0]
    assert len(loop.shards) == 2 and [c.asked for c in loop.collectors] == [3, 3]
    assert not (tmp_path / "log.jsonl").exists() and not (tmp_path / "tensorboard").exists()
    assert [m["step"] for m in summary["measured"]] == [10, 20, 30]
    assert [m["proxy"] for m in summary["measured"]] == summary["proxy"]


def test_what_the_objective_learns_is_trained_saved_and_resumed(tmp_path, monkeypatch):
    whole = distiller(tmp_path / "whole")
    first = whole.objective.projections[0].weight.detach().clone()
    whole.run()
    assert not torch.equal(first, whole.objective.projections[0].weight)
    cut = distiller(tmp_path / "cut")
    step = cut._step

    def interrupted():
        if cut.position.step == 15:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(cut, "_step", interrupted)
    assert cut.run()["interrupted"]
    again = distiller(tmp_path / "cut", resume=True)
    assert len(again.run()["measured"]) == 3
    assert torch.equal(again.objective.projections[0].weight, whole.objective.projections[0].weight)
    assert torch.equal(again.student.module.weight, whole.student.module.weight)


def test_ratios_that_are_known_from_the_start_are_where_the_mixture_begins(tmp_path):
    ratios = ([1.0, 1.0, 1.0], [2.0, 1.5, 1.0])
    loop = distiller(tmp_path, ratios=ratios, mixture=Mixture(["a", "b"], smoothing=0.5))
    summary = loop.run()
    wanted = Mixture(["a", "b"], smoothing=0.5)
    wanted.begin({"a": 1.0, "b": 2.0})
    wanted.update({"a": 1.0, "b": 1.5})
    assert summary["mixture"] == pytest.approx(wanted.update({"a": 1.0, "b": 1.0}))


def test_a_mixture_of_other_domains_is_refused(tmp_path):
    with pytest.raises(DistillError, match="cannot serve the domains"):
        distiller(tmp_path, mixture=Mixture(["a", "c"]))
    with pytest.raises(DistillError, match="warmup must not be negative"):
        LoopConfig(warmup=-1)


def test_several_teachers_label_one_batch_by_name():
    teachers = Teachers({"near": Wide(), "far": Wide()})
    batch = {"y": torch.zeros(2, 4)}
    assert set(teachers.label(batch)) == {"near", "far"} and len(teachers.fingerprint()) == 64
    part = HiddenStateMatching({0: 0}, widths=(2, 4))
    sum_ = WeightedSum({"near": (1.0, part), "far": (1.0, part)})
    student = StudentOutput(hidden=(torch.ones(2, 1, 2),))
    assert sum_(student, teachers.label(batch)).item() == pytest.approx(2 * part(student, Wide().label(batch)).item())
    with pytest.raises(DistillError, match="at least one"):
        Teachers({})
