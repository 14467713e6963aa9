"""The loop on a toy that is no robot: a point that is to be steered home along a curved valley.

The teacher's path is narrow, so a student that only ever saw it does not know what to do beside it: rounds on its own
path must help. Everything is small enough for exact comparisons.
"""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from rich.console import Console
from torch import nn

from distill.core import checkpoints, precision
from distill.core.collect import CollectionPlan, Experience, Student
from distill.core.errors import DistillError
from distill.core.loop import Distiller, LoopConfig, load_best, load_last
from distill.core.objectives.actions import SquaredError
from distill.core.objectives.base import StudentOutput
from distill.core.schedules import Beta
from distill.core.signals import Actions

LENGTH = 15
CONFIG = LoopConfig(
    rounds=3, first_rows=300, rows=300, first_steps=200, steps=100, batch=64, learning_rate=1e-2, beta=Beta(1.0, 0.0),
    held_out=64,
)  # fmt: skip


def expert(x: np.ndarray) -> np.ndarray:
    """Where the teacher goes from `x` `[N, 2]`: along the first axis, back to the valley sin(3 x) on the second."""
    return np.stack([0.1 * np.ones(len(x)), np.clip(np.sin(3 * (x[:, 0] + 0.1)) - x[:, 1], -0.5, 0.5)], 1)


class Net(Student):
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 2))
        self.begun = 0

    def outputs(self, module, batch):
        return StudentOutput(action_mean=module(batch["x"]))

    def begin(self, shards):
        self.begun += 1

    @torch.no_grad()
    def act(self, x: np.ndarray) -> np.ndarray:
        return self.module(torch.as_tensor(x, dtype=torch.float32)).numpy()


class Valley:
    """Rolls points out; `gain` is how near they stay to the valley."""

    def __init__(self, name: str, start: float = 0.0) -> None:
        self.name, self.start, self.plans = name, start, []

    def collect(self, student, plan: CollectionPlan) -> Experience:
        self.plans.append((plan, student is not None))
        rng = np.random.default_rng(plan.seed)
        worlds = max(plan.rows // LENGTH, 1)
        x = np.stack([self.start + 0.1 * rng.standard_normal(worlds), 0.02 * rng.standard_normal(worlds)], 1)
        seen, labels, off = [], [], []
        for _ in range(LENGTH):
            wanted = expert(x)
            seen.append(x.astype(np.float32))
            labels.append(wanted.astype(np.float32))
            off.append(np.abs(np.sin(3 * x[:, 0]) - x[:, 1]))
            teacher = rng.random(worlds) < plan.beta
            x = x + (wanted if student is None else np.where(teacher[:, None], wanted, student.act(x)))
        fields = {"x": np.concatenate(np.stack(seen, 1)), "action": np.concatenate(np.stack(labels, 1))}
        return Experience(fields, [LENGTH] * worlds, {"gain": 1 / (0.05 + float(np.mean(off)))})


class Rows:
    def sample(self, shards, rng, counts, held_out=False):
        parts = {"x": [], "action": []}
        for domain in counts:
            own = [s for s in shards.shards if s.about["domain"] == domain]
            for name, values in parts.items():
                rows = np.concatenate([shards.array(s, name) for s in own])
                keep = np.arange(len(rows)) // LENGTH % 5 == 4
                values.append(rows[keep == held_out])
        chosen = [rng.integers(0, len(rows), count) for rows, count in zip(parts["x"], counts.values(), strict=True)]
        return {
            name: torch.from_numpy(np.concatenate([v[i] for v, i in zip(values, chosen, strict=True)]))
            for name, values in parts.items()
        }


class Read:
    kind = Actions

    def label(self, batch):
        return Actions(batch["action"])

    def fingerprint(self):
        return "00"


def golden(student) -> dict[str, float]:
    found = Valley("test").collect(student, CollectionPlan(0, 0.0, 20 * LENGTH, 99))
    return {"golden": -1 / found.measured["gain"]}


def distiller(folder: Path, config: LoopConfig = CONFIG, resume: bool = False, evaluate=golden, student=None):
    student = student or Net()
    domains = [Valley("left"), Valley("right", 1.0)]
    quiet = Console(quiet=True)
    return Distiller(
        student, SquaredError(), Read(), domains, Rows(), folder, config, evaluate, resume, quiet
    ), student  # fmt: skip


def test_on_policy_rounds_bring_the_student_home(tmp_path):
    loop, student = distiller(tmp_path / "run")
    summary = loop.run()
    assert summary["golden"][-1] > 0.6 * summary["golden"][0], (summary["golden"], "costs are negative")
    assert summary["best_round"] > 0
    assert student.begun == 1
    assert [plan.beta for plan, _ in loop.collectors[0].plans] == [1.0, 0.0, 0.0, 0.0]
    assert [with_student for _, with_student in loop.collectors[0].plans] == [False, True, True, True]


def test_a_run_leaves_its_figures_where_a_person_looks(tmp_path):
    loop, _ = distiller(tmp_path / "run")
    summary = loop.run()
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    assert (tmp_path / "run" / "curve.png").stat().st_size > 1000
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    kinds = {json.loads(line)["kind"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()}
    assert kinds == {"fit", "round", "left", "right", "mixture"}
    assert summary["steps"] == 500 and sum(summary["rows_drawn"].values()) == 500 * 64


class Stop(Exception):
    pass


@pytest.mark.parametrize("at, average", [(2, 0.0), (275, 0.0), (275, 0.9)])
def test_an_interrupted_run_goes_on_to_the_same_student(tmp_path, at, average, monkeypatch):
    config = replace(CONFIG, average=average)
    loop, whole = distiller(tmp_path / "whole", config)
    loop.run()
    first, _ = distiller(tmp_path / "cut", config)
    step = first._step

    def interrupted() -> float:
        if first.position.step == at:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(first, "_step", interrupted)
    assert first.run()["interrupted"]
    second, student = distiller(tmp_path / "cut", config, resume=True)
    summary = second.run()
    assert not summary["interrupted"] and summary["steps"] == 500
    assert summary["golden"] == loop.monitor.golden
    for mine, wanted in zip(student.module.parameters(), whole.module.parameters(), strict=True):
        assert torch.equal(mine, wanted)


def test_the_average_of_the_last_steps_drives_is_measured_and_is_kept(tmp_path, monkeypatch):
    measured = []

    def measure(student):
        measured.append([p.detach().clone() for p in student.module.parameters()])
        return {"golden": float(len(measured))}

    config = replace(CONFIG, rounds=1, average=0.95)
    loop, student = distiller(tmp_path / "run", config, evaluate=measure)
    wanted = [p.detach().double() for p in student.module.parameters()]
    step, after = loop._step, []

    def stepped() -> float:
        loss = step()
        k = loop.position.step
        decay = min(0.95, (1 + k) / (10 + k))
        for mean, value in zip(wanted, student.module.parameters(), strict=True):
            mean.copy_(decay * mean + (1 - decay) * value.detach().double())
        after.append([mean.clone() for mean in wanted])
        return loss

    driven = []
    for domain in loop.collectors:
        collect = domain.collect

        def collected(pupil, plan, collect=collect):
            if pupil is not None:
                driven.append([p.detach().clone() for p in pupil.module.parameters()])
            return collect(pupil, plan)

        domain.collect = collected
    monkeypatch.setattr(loop, "_step", stepped)
    loop.run()
    kept = Net()
    load_best(tmp_path / "run", kept)
    of = {"driven": (driven[0], 199), "first": (measured[0], 199), "last": (measured[1], 299)}
    for name, (found, k) in {**of, "kept": ([*kept.module.parameters()], 299)}.items():
        for mine, mean in zip(found, after[k], strict=True):
            torch.testing.assert_close(mine.double(), mean, rtol=0, atol=1e-5, msg=name)
    own = [*student.module.parameters()]
    assert any(not torch.allclose(mine, mean, atol=1e-4) for mine, mean in zip(own, measured[1], strict=True)), (
        "training goes on from its own parameters"
    )


def test_a_run_that_was_killed_while_collecting_goes_on_from_the_domain_it_was_in(tmp_path):
    loop, whole = distiller(tmp_path / "whole")
    loop.run()
    first, _ = distiller(tmp_path / "cut")
    domain = first.collectors[1]
    collect = domain.collect

    def killed(student, plan):
        if plan.round == 1:
            raise Stop
        return collect(student, plan)

    domain.collect = killed
    with pytest.raises(Stop):
        first.run()
    second, student = distiller(tmp_path / "cut", resume=True)
    second.run()
    assert [plan.round for plan, _ in second.collectors[0].plans] == [2, 3], "round 1 of the first domain was there"
    assert [plan.round for plan, _ in second.collectors[1].plans] == [1, 2, 3]
    for mine, wanted in zip(student.module.parameters(), whole.module.parameters(), strict=True):
        assert torch.equal(mine, wanted)


def test_a_folder_with_a_run_is_not_begun_again(tmp_path):
    loop, _ = distiller(tmp_path / "run")
    loop.run()
    with pytest.raises(DistillError, match="already holds a run"):
        distiller(tmp_path / "run")
    with pytest.raises(DistillError, match="was begun with batch 64, not 32"):
        distiller(tmp_path / "run", LoopConfig(**{**vars(CONFIG), "batch": 32}), resume=True)


def test_a_checkpoint_of_another_student_or_a_damaged_one_is_one_sentence(tmp_path):
    loop, _ = distiller(tmp_path / "run")
    loop.run()
    other = Net()
    other.module = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    with pytest.raises(DistillError, match="another student"):
        distiller(tmp_path / "run", resume=True, student=other)
    with pytest.raises(DistillError, match="another student"):
        load_best(tmp_path / "run", other)
    tensors = tmp_path / "run" / "checkpoint" / "tensors.pt"
    tensors.write_bytes(tensors.read_bytes()[:100])
    with pytest.raises(DistillError, match="cannot be read"):
        distiller(tmp_path / "run", resume=True)
    with pytest.raises(DistillError, match="no measured student"):
        load_best(tmp_path, Net())


@pytest.mark.parametrize("name", [checkpoints.TENSORS, checkpoints.VALUES, checkpoints.SUMS])
def test_any_flipped_bit_of_a_checkpoint_is_refused(tmp_path, name):
    path = checkpoints.save(tmp_path, {"step": 3}, {"student": {"a": torch.arange(9.0)}})
    content = (path / name).read_bytes()
    for place in np.random.default_rng(0).choice(8 * len(content), 40, replace=False):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << (place % 8)
        (path / name).write_bytes(flipped)
        with pytest.raises(DistillError):
            checkpoints.load(path)
    (path / name).unlink()
    with pytest.raises(DistillError):
        checkpoints.load(path)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")  # as torch says it

    path = checkpoints.save(tmp_path, {"step": 3}, {})
    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(DistillError):
        checkpoints.save(tmp_path, {"step": 4}, {})
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert checkpoints.load(path)[0] == {"step": 3}


def test_the_log_of_a_resumed_run_holds_every_line_once(tmp_path):
    short = replace(CONFIG, rounds=0, first_steps=30)
    loop, _ = distiller(tmp_path / "run", short)
    loop.run()
    log = tmp_path / "run" / "log.jsonl"
    whole = log.read_text()
    log.write_text(whole + whole[-100:])  # logged, and then killed before the next checkpoint
    loop, _ = distiller(tmp_path / "run", short, resume=True)
    loop.run()
    assert log.read_text() == whole


def test_the_best_round_is_kept_whatever_comes_after_it(tmp_path):
    scores = iter([0.2, 0.9, 0.5, 0.4])
    weights = []

    def measure(student):
        weights.append([p.detach().clone() for p in student.module.parameters()])
        return {"golden": next(scores)}

    loop, student = distiller(tmp_path / "run", evaluate=measure)
    summary = loop.run()
    assert summary["best_round"] == 1
    fresh = Net()
    assert load_best(tmp_path / "run", fresh)["golden"] == 0.9
    for mine, wanted in zip(fresh.module.parameters(), weights[1], strict=True):
        assert torch.equal(mine, wanted)
    del student


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_last_round_can_be_had_too(tmp_path, average):
    scores = iter([0.2, 0.9, 0.5, 0.4])
    weights = []

    def measure(student):
        weights.append([p.detach().clone() for p in student.module.parameters()])
        return {"golden": next(scores)}

    with pytest.raises(DistillError):
        load_last(tmp_path / "run", Net())
    loop, _ = distiller(tmp_path / "run", replace(CONFIG, average=average), evaluate=measure)
    loop.run()
    fresh = Net()
    assert load_last(tmp_path / "run", fresh) == {"round": 3, "golden": 0.4}
    for mine, wanted in zip(fresh.module.parameters(), weights[-1], strict=True):
        assert torch.equal(mine, wanted)


def test_patience_ends_a_run_that_gets_no_better(tmp_path):
    scores = iter([0.9, 0.5, 0.4, 0.3])
    loop, _ = distiller(
        tmp_path / "run", LoopConfig(**{**vars(CONFIG), "patience": 1}), evaluate=lambda s: {"golden": next(scores)}
    )
    summary = loop.run()
    assert summary["stopped_early"] and summary["rounds"] == 2


def test_the_mixture_follows_the_domain_that_lags(tmp_path):
    loop, _ = distiller(tmp_path / "run")
    left, right = loop.collectors
    measured = {"left": iter([1.0, 1.0, 1.0, 1.0]), "right": iter([2.0, 0.5, 0.5, 0.5])}
    for domain in (left, right):
        collect = domain.collect

        def fixed(student, plan, collect=collect, name=domain.name):
            found = collect(student, plan)
            return Experience(found.fields, found.episodes, {"gain": next(measured[name])})

        domain.collect = fixed
    summary = loop.run()
    assert summary["mixture"]["right"] > 0.6


def test_a_loss_that_is_not_finite_stops_the_run_with_a_sentence(tmp_path):
    loop, student = distiller(tmp_path / "run")
    with torch.no_grad():
        student.module[0].weight.fill_(float("nan"))
    with pytest.raises(DistillError, match="lower the learning rate|finite"):
        loop.run()


def test_mixed_precision_learns_too_and_keeps_its_parameters_in_float32(tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)  # accelerate allows one precision a process
    try:
        loop, student = distiller(tmp_path / "run", replace(CONFIG, precision="bf16", rounds=1))
        summary = loop.run()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    exact = distiller(tmp_path / "exact", replace(CONFIG, rounds=1))[0].run()
    assert summary["proxy"] != exact["proxy"]
    assert summary["proxy"][-1] == pytest.approx(exact["proxy"][-1], rel=0.5)
    assert {p.dtype for p in student.module.parameters()} == {torch.float32}


@pytest.mark.parametrize("times, lines", [(12.0, 1), (0.7, 0)])
def test_a_precision_that_only_costs_time_here_is_said_so(tmp_path, monkeypatch, times, lines):
    console = Console(record=True, file=io.StringIO(), width=200)
    monkeypatch.setattr(precision, "slowness", lambda name, device: times if name != "no" else 1.0)
    AcceleratorState._reset_state(reset_partial_state=True)  # accelerate allows one precision a process
    try:
        run, _ = distiller(tmp_path, replace(CONFIG, rounds=0, first_steps=2, precision="bf16"))
        run.console = console
        run.run()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert sum("bf16" in line for line in console.export_text().splitlines()) == lines


def test_what_a_precision_costs_is_measured():
    here = torch.device("cpu")
    assert precision.slowness("no", here) == 1.0 and precision.slowness("bf16", here) > 0.0
