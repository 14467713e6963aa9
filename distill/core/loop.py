"""The loop: collect experience, label it, fit the student to the labels, measure; round after round.

Collecting with the teacher is behavioural cloning; with the student it is DAgger for a robot and on-policy distillation
for a language model: the same loop, the share of each set by `Beta`. The loop knows no robot and no tokenizer.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from distill.core import checkpoints, precision, sharding
from distill.core.averaging import Average
from distill.core.collect import CollectionPlan, Collector, Resumable, Sampler, Student
from distill.core.errors import DistillError, first_line
from distill.core.folders import hold
from distill.core.journal import Journal, cut, logged
from distill.core.mixture import Mixture
from distill.core.monitor import Monitor
from distill.core.objectives.base import Objective
from distill.core.processes import (
    Learner,
    common_checkpoint,
    counted,
    everybody,
    leaves_at_exit,
    pieces,
    random_state,
    set_random_state,
    share,
    summed,
)
from distill.core.schedules import Beta, WarmupCosine
from distill.core.shards import Shards
from distill.core.teachers import Teacher, Teachers


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast, from whose experience."""

    rounds: int = 8
    """Rounds after the first, which is behavioural cloning."""
    first_rows: int = 150_000
    """Rows that each domain collects in the first round."""
    rows: int = 50_000
    """Rows that each domain collects in every later one."""
    first_steps: int = 2500
    """Optimiser steps in the first round."""
    steps: int = 600
    """Optimiser steps in every later one."""
    batch: int = 256
    """Rows that one process learns from in a step; of all processes together where they are `shared`."""
    micro_batch: int = 0
    """Rows that are computed at once: gradients of a batch are added up piece by piece, each weighed by what counts in
    it. 0: the whole batch."""
    shared: bool = False
    """Whether all processes collect the same rows, so that they draw one batch and each learns from its part; otherwise
    each collects and draws its own."""
    learning_rate: float = 1e-3
    last_learning_rate: float = 5e-5
    warmup: int = 100
    """Optimiser steps in which the learning rate rises to its peak."""
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    learned_rate: float = 1.0
    """Times the learning rate at which what the objective itself learns (projections, a critic) is learned."""
    average: float = 0.0
    """Decay, per optimiser step, of a moving average of the student's parameters, which is then what collects, is
    measured and is kept: single steps of a small batch make a student better and worse by chance. 0: none."""
    beta: Beta = Beta()
    smoothing: float = 0.5
    """Of the mixture over domains, see `distill.core.mixture`; 0 draws evenly from all."""
    held_out: int = 2048
    """Examples on which the proxy is measured."""
    patience: int = 0
    golden_tolerance: float = 0.02
    precision: str = "no"
    """Mixed precision, as accelerate names it: no, bf16, fp16."""
    seed: int = 0
    checkpoint_minutes: float = 3.0
    light: bool = False
    """No TensorBoard, log and picture: for runs of seconds, of which a recipe makes many."""

    def __post_init__(self) -> None:
        for name in ("first_rows", "rows", "first_steps", "steps", "batch", "held_out"):
            if getattr(self, name) < 1:
                raise DistillError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("rounds", "warmup", "micro_batch"):
            if getattr(self, name) < 0:
                raise DistillError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.learned_rate < np.inf:
            raise DistillError(f"learned_rate must be above 0, got {self.learned_rate}")
        if not 0 <= self.average < 1:
            raise DistillError(f"average must be from 0 to below 1, got {self.average}")

    @property
    def total_steps(self) -> int:
        """Optimiser steps over all rounds."""
        return self.first_steps + self.rounds * self.steps

    def ends(self, round_: int) -> int:
        """The optimiser step at which a round's fitting ends."""
        return self.first_steps + round_ * self.steps


@dataclass
class Position:
    """Where a run is."""

    round: int = 0
    collected: int = 0
    """Domains that have collected in this round."""
    step: int = 0
    """Optimiser steps."""
    seconds: float = 0.0


class Distiller:
    """One distillation run in one folder: checkpoints, shards, logs, the best student."""

    def __init__(
        self,
        student: Student,
        objective: Objective,
        teacher: Teacher | Teachers,
        collectors: Sequence[Collector],
        sampler: Sampler,
        folder: Path,
        config: LoopConfig = LoopConfig(),
        evaluate: Callable[[Student], Mapping[str, float]] | None = None,
        resume: bool = False,
        console: Console | None = None,
        mixture: Mixture | None = None,
    ) -> None:
        """`evaluate` measures the student after each round; its `golden` (higher is better) picks the best one.

        `mixture` over the collectors' names replaces the one that `config.smoothing` makes. What the objective learns
        (`Objective.learned`) is trained and saved with the student.

        Raises:
          DistillError: the folder holds another run, a checkpoint that cannot be read, or a mixture of other names.
        """
        self.student, self.objective, self.teacher = student, objective, teacher
        self.collectors, self.sampler, self.config = tuple(collectors), sampler, config
        self.evaluate = evaluate
        self.sharded = sharding.asked()
        """Whether each process keeps a part of the student that is trained; `student` is then a whole copy."""
        leaves_at_exit()
        self.accelerator = Accelerator(mixed_precision=config.precision, cpu=not torch.cuda.is_available())
        self.sharded = self.sharded and self.accelerator.num_processes > 1
        self.rank = self.accelerator.process_index
        self.folder = Path(folder) if self.rank == 0 else Path(folder) / f"rank_{self.rank}"
        self.tracker: Callable[[int, Mapping[str, float]], None] | None = None
        """Is given what is logged, step by step, beside TensorBoard."""
        self.console = Console(stderr=True, quiet=True) if self.rank else console or Console(stderr=True)
        self._lock = hold(self.folder)  # until the run ends, or there is none: nobody else writes here
        if config.shared and config.batch < self.accelerator.num_processes:
            raise DistillError(f"{self.accelerator.num_processes} processes cannot share a batch of {config.batch}")
        self.saves = 0
        """Checkpoints that were written so far."""
        name = common_checkpoint(self.accelerator, checkpoints.known(self.folder), folder)
        if name is not None and not resume:
            raise DistillError(f"{folder} already holds a run: resume it, or choose another folder")
        saved = None if name is None else self.folder / name
        self.shards = Shards(self.folder / "data")
        names = [collector.name for collector in self.collectors]
        self.mixture = Mixture(names, config.smoothing) if mixture is None else mixture
        if list(self.mixture.names) != names:
            raise DistillError(f"a mixture of {list(self.mixture.names)} cannot serve the domains {names}")
        self.monitor = Monitor(config.patience, config.golden_tolerance)
        self.position = Position()
        self.stream = 0 if config.shared else self.rank
        """Which of the streams of random draws this process takes rows from."""
        self.rng = np.random.default_rng([config.seed, self.stream])
        torch.manual_seed(config.seed + self.rank)  # pyright: ignore[reportUnknownMemberType] (torch types no seed)
        self.schedule = WarmupCosine(config.learning_rate, config.total_steps, config.warmup, config.last_learning_rate)
        own = copy.deepcopy(student.module) if self.sharded else None
        self.learner = Learner(student, objective, own).to(self.accelerator.device)
        self.learned = self.learner.learned
        if self.sharded:
            student.module.to(self.accelerator.device)
            sharding.shard(self.learner)
        self.trained = [p for p in self.learner.parameters() if p.requires_grad]
        if self.sharded and config.average:
            raise DistillError("a student that is spread over its processes keeps no average of its parameters")
        own_parameters = [p for p in student.module.parameters() if p.requires_grad]
        self.average = Average(own_parameters, config.average) if config.average else None
        optimizer = torch.optim.AdamW(
            self._groups(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
        )
        if self.sharded:
            self.module, self.optimizer = self.learner, optimizer
        else:
            self.module, self.optimizer = self.accelerator.prepare(self.learner, optimizer)
        self.reached: dict[str, float] = {}
        """Domain -> the teacher's gain there."""
        self.ratios: dict[str, float] = {}
        """Domain -> the teacher's gain over the student's, in the round at hand."""
        self.measured: list[dict[str, float]] = []
        """What was measured after each round, with its optimiser step."""
        if saved is not None:
            self._restore(saved)
        else:
            self.shards.keep(0)

    def _groups(self) -> list[Any]:
        """Of parameters, as an optimiser takes them: one, unless what the objective learns has a rate of its own."""
        times = self.config.learned_rate
        if times == 1.0:
            return self.trained
        own = {id(p) for p in self.learner.learned.parameters()}
        parts = [[p for p in self.trained if (id(p) in own) == learned] for learned in (False, True)]
        return [{"params": part, "times": factor} for part, factor in zip(parts, (1.0, times), strict=True)]

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Everything that decides the rest of the run.

        Raises:
          DistillError: processes of one run hold different students.
        """
        several = self.accelerator.num_processes > 1
        self._gather()
        if several and not self.sharded and len(set(everybody(self.accelerator, self.learner.digest()))) > 1:
            raise DistillError(f"the processes hold different students at step {self.position.step}")
        self.saves += 1
        random, generators = random_state(self.accelerator.device)
        values = {
            "saves": self.saves, "processes": self.accelerator.num_processes, "random": random,
            "sharded": self.sharded,
            "config": checkpoints.plain(asdict(self.config)), "domains": list(self.mixture.names),
            "position": asdict(self.position), "shards": len(self.shards), "mixture": self.mixture.state(),
            "watch": self.monitor.state(), "reached": self.reached, "ratios": self.ratios,
            "measured": self.measured, "rng": self.rng.bit_generator.state,
            "sampler": self.sampler.state() if isinstance(self.sampler, Resumable) else {},
            "logged": logged(self.folder),
        }  # fmt: skip
        tensors = {"student": self.student.module.state_dict(), "random": generators}
        if self.sharded:
            tensors["optimizer"] = sharding.optimizer_state(self.learner, self.optimizer)
            tensors["objective"] = sharding.whole(self.learner, "learned.")
            if self.rank:  # the first process's are those of all
                tensors = {"random": generators}
        else:
            tensors |= {"optimizer": self.optimizer.state_dict(), "objective": self.learned.state_dict()}
            tensors |= {"average": self.average.values} if self.average else {}
        checkpoints.save(self.folder, values, tensors, keep=several)
        self.accelerator.wait_for_everyone()  # none may save twice before all have saved once

    def _restore(self, saved: Path) -> None:
        values, tensors = checkpoints.load(saved)
        ours = checkpoints.plain(asdict(self.config))
        theirs = {**checkpoints.plain(asdict(LoopConfig())), **values["config"]}
        for key in sorted(set(ours) - {"checkpoint_minutes", "patience", "light"}):
            if theirs[key] != ours[key]:
                raise DistillError(f"{self.folder} was begun with {key} {theirs[key]}, not {ours[key]}")
        if values.get("sharded", False) != self.sharded:
            how = ("spread over its processes", "whole in each process")
            raise DistillError(
                f"{self.folder} was begun with the student {how[self.sharded]}, not {how[not self.sharded]}"
            )
        if values["domains"] != list(self.mixture.names):
            raise DistillError(f"{self.folder} was begun with the domains {values['domains']}")
        self.saves = int(values.get("saves", 0))
        self.position = Position(**values["position"])
        self.shards.keep(values["shards"])
        if len(self.shards) < values["shards"]:
            raise DistillError(f"{self.folder} has lost shards: {len(self.shards)} of {values['shards']} are there")
        self.mixture.restore(values["mixture"])
        self.monitor.restore(values["watch"])
        self.reached, self.ratios = values["reached"], values["ratios"]
        self.measured = values.get("measured", [])
        cut(self.folder, values.get("logged"))
        self.rng.bit_generator.state = values["rng"]
        if isinstance(self.sampler, Resumable):
            self.sampler.restore(values.get("sampler", {}))
        try:
            if self.sharded:
                self._scatter(tensors)
            else:
                self.student.module.load_state_dict(tensors["student"])
                self.optimizer.load_state_dict(tensors["optimizer"])
                self.learned.load_state_dict(tensors.get("objective", {}))
                if self.average:
                    self.average.restore(tensors["average"])
            set_random_state(self.accelerator.device, values.get("random", {}), tensors.get("random", {}))
        except (RuntimeError, ValueError, KeyError) as error:
            raise DistillError(f"the checkpoint in {saved} is of another student: {error}") from error

    def _gather(self) -> None:
        """Copies the trained parameters into the student where processes keep parts of them."""
        if self.sharded:
            self.student.module.load_state_dict(sharding.whole(self.learner, "student."))

    def _scatter(self, tensors: Mapping[str, Any]) -> None:
        """Gives each process its part of a checkpoint."""
        state: dict[str, Any] = {}
        if self.rank == 0:
            state = {f"student.{name}": value for name, value in tensors["student"].items()}
            state |= {f"learned.{name}": value for name, value in tensors.get("objective", {}).items()}
        sharding.load_whole(self.learner, state)
        sharding.load_optimizer_state(self.learner, self.optimizer, tensors.get("optimizer", {}))
        self._gather()

    # --- the loop -------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Runs to the last round, or to Ctrl-C, which saves first. Returns the summary, also in `summary.json`."""
        try:
            return self._run()
        finally:
            self._lock.release()

    def _run(self) -> dict[str, Any]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        interrupted = False
        times = precision.slowness(self.config.precision, self.accelerator.device)
        if times > precision.SLOWER:
            self.console.print(
                f"arithmetic in {self.config.precision} takes {times:.0f} times as long as float32 here: leave it out",
                highlight=False,
            )
        with (
            Journal(self.folder, self.rank == 0 and not self.config.light, self.position.step, self.tracker) as journal,
            Progress(*columns, console=self.console, disable=self.rank > 0) as progress,
        ):
            bar = progress.add_task("distil", total=self.config.total_steps, completed=self.position.step)

            def show(text: str) -> None:
                progress.update(bar, completed=self.position.step, description=text)

            try:
                while self.position.round <= self.config.rounds and not self.monitor.stop:
                    self._collect(journal, show)
                    self._fit(journal, show)
                    self._measure(journal, show)
            except KeyboardInterrupt:
                interrupted = True
                if self.accelerator.num_processes == 1:  # several may be at different places: their last one stays
                    self.save()
            journal.plot(f"distillation, {self.student.module.__class__.__name__}")
            return self._summary(journal, interrupted)

    def _collect(self, journal: Journal, say: Callable[[str], None]) -> None:
        config, here = self.config, self.position
        beta = config.beta.at(here.round)
        student = None if here.round == 0 else self.student
        for k, collector in enumerate(self.collectors):
            if k < here.collected:
                continue
            began = time.perf_counter()
            say(f"round {here.round} collect {collector.name}")
            seed = int(np.random.SeedSequence([config.seed, self.stream, here.round, k]).generate_state(1)[0])
            rows = config.first_rows if here.round == 0 else config.rows
            self.student.module.eval()
            with self._averaged():
                found = collector.collect(student, CollectionPlan(here.round, beta, rows, seed))
            about = {"domain": collector.name, "round": here.round, "beta": beta, "seed": seed}
            if found.episodes:
                self.shards.append(found.fields, found.episodes, {**about, "measured": dict(found.measured)})
            if "ratio" in found.measured:
                self.ratios[collector.name] = self._mean(float(found.measured["ratio"]))
            elif "gain" in found.measured:
                self._compare(collector.name, here.round, self._mean(float(found.measured["gain"])))
            here.collected = k + 1
            here.seconds += time.perf_counter() - began
            journal.add(here.step, {**found.measured, "rows": sum(found.episodes), "beta": beta}, collector.name)
            if found.episodes:
                self._tell(f"{collector.name}: {sum(found.episodes)} rows, beta {beta:.2f}", found.measured, began)
            self.save()
        if getattr(self.sampler, "forgets", False):
            self.shards.forget(before=here.round)
        if self.ratios and set(self.ratios) == set(self.mixture.names):
            weights = (self.mixture.update if here.round else self.mixture.begin)(self.ratios)
            journal.add(here.step, {f"weight/{n}": w for n, w in weights.items()}, "mixture")
            self.ratios = {}
        if here.round == 0 and here.step == 0:
            self.student.begin(self.shards)
            self.save()

    def _compare(self, domain: str, round_: int, gain: float) -> None:
        """What the teacher reached in the first round is what the student's later gains are compared with."""
        if round_ == 0:
            self.reached[domain] = gain
        elif domain in self.reached:
            self.ratios[domain] = self.reached[domain] / max(gain, 1e-6)

    def _fit(self, journal: Journal, say: Callable[[str], None]) -> None:
        config, here = self.config, self.position
        self.module.train()
        saved = time.perf_counter()
        mean, count = 0.0, 0
        while here.step < config.ends(here.round):
            began = time.perf_counter()
            loss = self._step()
            here.step += 1
            due = time.perf_counter() - saved > 60 * config.checkpoint_minutes
            here.seconds += time.perf_counter() - began
            mean, count = mean + loss, count + 1
            if here.step % 25 == 0 or here.step == config.ends(here.round):
                values = {"loss": mean / count, "learning_rate": self.schedule.at(here.step - 1)}
                journal.add(here.step, values)
                say(f"round {here.round} fit loss {mean / count:.4f}")
                mean, count = 0.0, 0
                if not self.console.is_terminal and here.step % 200 == 0:
                    self._tell(f"step {here.step} of {config.total_steps}", values, began)
            if summed(self.accelerator, due)[0]:  # clocks differ: all save, or none
                self.save()
                saved = time.perf_counter()

    def _step(self) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.at(self.position.step) * group.get("times", 1.0)
        counts = self.mixture.counts(self.rng, self.config.batch)
        batch = self._batch(self.sampler.sample(self.shards, self.rng, counts))
        processes = self.accelerator.num_processes
        mine = share(batch, self.rank, processes) if self.config.shared and processes > 1 else batch
        parts = pieces(mine, self.config.micro_batch)
        counted_here = [counted(part) for part in parts]
        if self.sharded and self.config.shared:  # all compute equally often: what is spread is gathered by all together
            missing = len(pieces(share(batch, 0, processes), self.config.micro_batch)) - len(parts)
            parts, counted_here = parts + parts[-1:] * missing, counted_here + [0] * missing
        everywhere = max(summed(self.accelerator, sum(counted_here))[0], 1.0) / processes
        self.optimizer.zero_grad()
        total = 0.0
        for i, (part, count) in enumerate(zip(parts, counted_here, strict=True)):
            last = i == len(parts) - 1
            if self.sharded:
                cast("Any", self.learner).set_requires_gradient_sync(last)
            with nullcontext() if last or self.sharded else self.accelerator.no_sync(self.module):
                with self.accelerator.autocast():
                    loss = self._loss(self.module, part)
                if count != everywhere:  # the mean over what counts in the whole batch, of all processes
                    loss = loss * (count / everywhere)
                total += loss.item()
                if last:
                    total = summed(self.accelerator, total)[0] / processes
                    if not np.isfinite(total):
                        raise DistillError(f"the loss is {total} at step {self.position.step}: lower the learning rate")
                self.accelerator.backward(loss)
        if self.sharded:
            torch.nn.utils.clip_grad_norm_(self.trained, self.config.max_gradient_norm)
        else:
            self.accelerator.clip_grad_norm_(self.trained, self.config.max_gradient_norm)
        self.optimizer.step()  # pyright: ignore[reportUnknownMemberType] (torch types no closure)
        if self.average:
            self.average.add(self.position.step)
        return total

    def _loss(self, learner: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Of the `learner` as it is, or as it is wrapped for several devices."""
        signal: Any = self.teacher.label(batch)
        return learner(batch, signal)

    def _batch(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: values.to(self.accelerator.device) for name, values in batch.items()}

    @torch.no_grad()
    def proxy(self, per_domain: bool = False) -> dict[str, float]:
        """The objective on held-out episodes: `all`, drawn evenly from the domains, and each domain's own."""
        rng = np.random.default_rng([self.config.seed, 77])
        self.module.eval()
        each = max(self.config.held_out // len(self.mixture.names), 1)
        found: dict[str, float] = {}
        for name in self.mixture.names:
            losses: list[tuple[float, int]] = []
            for first in range(0, each, self.config.batch):
                counts = {n: min(self.config.batch, each - first) if n == name else 0 for n in self.mixture.names}
                batch = self._batch(self.sampler.sample(self.shards, rng, counts, held_out=True))
                losses.append((self._loss(self.learner, batch).item(), counts[name]))
            found[name] = float(np.average([v for v, _ in losses], weights=[n for _, n in losses]))
        return {"all": float(np.mean(list(found.values()))), **(found if per_domain else {})}

    def _averaged(self) -> AbstractContextManager[None]:
        """The student with the average of its parameters, where there is one."""
        return self.average.applied() if self.average else nullcontext()

    def _measure(self, journal: Journal, say: Callable[[str], None]) -> None:
        with self._averaged():
            self._score(journal, say)
        self.position.round, self.position.collected = self.position.round + 1, 0
        self.save()

    def _score(self, journal: Journal, say: Callable[[str], None]) -> None:
        here, began = self.position, time.perf_counter()
        say(f"round {here.round} measure")
        proxy = self.proxy(per_domain=True)
        self._gather()
        self.student.module.eval()
        measured = dict(self.evaluate(self.student)) if self.evaluate else {"golden": -proxy["all"]}
        measured = {name: self._mean(float(value)) for name, value in measured.items()}
        self.monitor.add(self._mean(proxy["all"]), measured["golden"])
        values = {"proxy": proxy["all"], **{f"proxy/{n}": v for n, v in proxy.items() if n != "all"}, **measured}
        journal.add(here.step, values, "round")
        self.measured.append({"step": here.step, **values})
        self._tell(f"round {here.round}", values, began)
        if self.monitor.hacking:
            self.console.print("TEACHER HACKING: the imitation loss still falls, the score of the task falls too")
        if self.monitor.improved:
            checkpoints.save(self.folder / "best", {"round": here.round, **measured}, {"student": self._weights()})
        here.seconds += time.perf_counter() - began

    def _weights(self) -> dict[str, torch.Tensor]:
        return self.student.module.state_dict()

    def _mean(self, value: float) -> float:
        """The mean over all processes."""
        if self.accelerator.num_processes == 1:
            return value
        mine = torch.tensor([value], dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.gather(mine).mean())

    def _tell(self, what: str, values: Mapping[str, float], began: float) -> None:
        numbers = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        what = f"{what}: {numbers}" if numbers else what
        self.console.print(f"{what} ({time.perf_counter() - began:.0f} s)", highlight=False)

    def _summary(self, journal: Journal, interrupted: bool) -> dict[str, Any]:
        here = self.position
        summary = {
            "interrupted": interrupted,
            "stopped_early": self.monitor.stop and here.round <= self.config.rounds,
            "teacher_hacking": self.monitor.hacking,
            "rounds": here.round,
            "steps": here.step,
            "minutes": round(here.seconds / 60, 2),
            "best_round": self.monitor.best,
            "golden": self.monitor.golden,
            "proxy": self.monitor.proxy,
            "measured": self.measured,
            "mixture": self.mixture.as_dict(),
            "rows_drawn": dict(zip(self.mixture.names, self.mixture.drawn.tolist(), strict=True)),
            "config": checkpoints.plain(asdict(self.config)),
        }
        if self.rank == 0:
            journal.summary(summary)
        return summary


def load_best(folder: Path, student: Student) -> dict[str, Any]:
    """Gives a student the parameters with the best golden metric of the run in `folder`; returns what was measured.

    Raises:
      DistillError: no round was measured yet, or the file is damaged or of another student.
    """
    best = checkpoints.newest(Path(folder) / "best")
    if best is None:
        raise DistillError(f"{folder} has no measured student yet")
    values, tensors = checkpoints.load(best)
    _give(student, tensors, best)
    return values


def load_last(folder: Path, student: Student) -> dict[str, Any]:
    """Gives a student the parameters of the last measured round of a run, or their average where it kept one; returns
    what was measured, as `load_best` does.

    Raises:
      DistillError: no round was measured yet, or the file is damaged or of another student.
    """
    last = checkpoints.newest(Path(folder))
    values, tensors = ({}, {}) if last is None else checkpoints.load(last)
    measured = values.get("measured")
    if last is None or not measured or values["position"]["step"] != measured[-1]["step"]:
        raise DistillError(f"{folder} does not end with a measured student")
    _give(student, tensors, last)
    if values["config"].get("average"):
        average = Average([p for p in student.module.parameters() if p.requires_grad], values["config"]["average"])
        average.restore(tensors["average"])
        average.take()
    found = {name: value for name, value in measured[-1].items() if not name.startswith("proxy") and name != "step"}
    return {"round": len(measured) - 1, **found}


def _give(student: Student, tensors: Mapping[str, Any], path: Path) -> None:
    try:
        student.module.load_state_dict(tensors["student"])
    except (RuntimeError, KeyError) as error:
        raise DistillError(f"{path} is of another student: {first_line(error)}") from error
