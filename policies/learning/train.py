"""Training a specialist: the loop around the learner, with progress, checkpoints, curves and a summary.

Everything a run leaves is below its folder: `log.jsonl` (one line an iteration), `curve.png`, `summary.json`,
`tensorboard/`, `checkpoints/step_*` and, at the end, the exported policy bundle.
"""

import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from policies.bundle.shipped import folder as shipped
from policies.learning import checkpoint, curves, runs
from policies.learning.export import describe, export
from policies.learning.hosts import Hosts
from policies.learning.networks import NetworkConfig
from policies.learning.options import ExportOptions, TrainOptions
from policies.learning.ppo import Learner, LearnerState, PPOConfig, collect
from policies.learning.results import Trained
from policies.learning.translation import translate, widened
from policies.skills.library import load_skills
from sim.envs.batched import BatchedEnv, DivergedError
from sim.errors import InputError
from sim.folders import alone, replacing
from sim.machine import check_xla, need_memory
from sim.observation import Preview
from sim.reading import LARGEST_OWN, read_own, read_text
from sim.robots.description import DEFAULT, find_robot, robot_by_name
from sim.tasks.handovers import Handovers
from sim.tasks.patches import LEVELS
from sim.tasks.skills import TASKS, walk
from sim.tasks.task import Task
from sim.tasks.ways import Ways

CHECKPOINT_FORMAT = 1
TAKEN_OVER = ("params", "normalizer")
"""Parts of the learner's state that a run takes over from another one."""
HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "jump": {"discount": 0.98, "networks": NetworkConfig(initial_std=0.3)},
}
"""Where a skill's hyper-parameters differ from `PPOConfig`'s."""
STEPS = {"walk": 20_000_000, "climb": 12_000_000, "jump": 16_000_000}
"""Environment steps that make a skill, over every world."""
STALL_ITERATIONS, STALL_RISE = 100, 0.03
"""A curriculum whose mean level rose by less than this over so many iterations, twice in a row, has stalled."""
HANDOVERS = "handovers.npz"
"""In a run's folder: the hand-overs in which its episodes begin."""
WAYS = "ways.npz"
"""In a run's folder: the planned ways that its commands follow."""
Made = TypeVar("Made", Handovers, Ways)
PREVIEWED = (0.2, 0.4, 0.6)
"""s from now on that a walker with `--preview` sees."""
HOST_SEED_STRIDE = 1_000_000
"""Between the seeds of two hosts' worlds."""
WORLD_BYTES = 200_000
"""What a world takes of memory on the C engine, with its transitions of an iteration: 320 kB were measured."""
CHOSEN = ("handovers", "ways", "poles", "preview", "haste", "clock", "level")
"""Options that make a run's task another one than its skill's own."""
BEGUN = {option.name: option.default for option in fields(TrainOptions)}
"""What an option was where a checkpoint before it does not say: its default."""
FILES = ("log.jsonl", "curve.png", "summary.json", "diverged.npz", "tensorboard", "start", HANDOVERS, WAYS)
"""What a run writes beside its checkpoints and its bundle."""


def make_env(task: Task, options: TrainOptions) -> Any:
    """The task's worlds on the chosen engine."""
    worlds = Hosts(options.coordinator, options.hosts, options.host).share(options.worlds)
    seed = options.seed + HOST_SEED_STRIDE * options.host
    if options.backend == "cpu":
        return BatchedEnv(task, worlds, seed, threads=options.threads)
    if options.backend == "mjx":
        from sim.envs.mjx_batched import MjxBatchedEnv

        return MjxBatchedEnv(task, worlds, seed)
    raise InputError(f"unknown backend '{options.backend}': known are cpu, mjx")


class Run:
    """One training run: owns the environment, the learner and the folder."""

    def __init__(self, options: TrainOptions) -> None:
        if options.skill not in TASKS:
            raise InputError(f"unknown skill '{options.skill}': known are {', '.join(TASKS)}")
        options = replace(options, steps=STEPS[options.skill] if options.steps is None else options.steps)
        self.total = options.steps or 0
        self.hosts = Hosts(options.coordinator, options.hosts, options.host, options.listen)
        self.hosts.join()
        self.folder = options.folder if options.host == 0 else options.folder / f"host_{options.host}"
        self.checkpoints = self.folder / "checkpoints"
        newest = checkpoint.latest(self.checkpoints) if self.folder.exists() else None
        if newest is not None and not options.resume:
            raise InputError(f"{self.folder} already holds a run: add --resume to continue it, or choose another --out")
        if newest is None:
            runs.check_own(self.folder, _begun_with(options), (*FILES, f"{options.skill}.onnx"))
        # what can be refused at once, before minutes of hand-overs or ways
        config = PPOConfig(worlds=options.worlds, **HYPERPARAMETERS.get(options.skill, {}))
        if newest is None and options.start_from is not None:
            checkpoint.load(source_of(options.start_from))
        self.task: Task = TASKS[options.skill](find_robot(options.robot))
        if options.handovers:
            self.task = replace(self.task, handovers=self._handovers(options))
        if options.ways:
            self.task = walk(self.task.robot, self._ways(options), options.poles)
        if options.preview != "none":
            self.task = replace(self.task, preview=Preview(PREVIEWED, options.preview))
        if options.haste != 1.0:
            self.task = self.task.hastened(options.haste)
        if options.clock is not None:
            self.task = replace(self.task, clock=replace(self.task.gait, frequency=options.clock))
        if options.level is not None:
            self.task = replace(self.task, start_level=options.level)
        self.commit = runs.commit()
        self.options = TrainOptions(**{**asdict(options), "worlds": config.worlds})
        self.learner = Learner(config, self.task.layout.size, self.task.privileged_size, self.task.robot.joints)
        self.state: LearnerState = self.learner.initial(options.seed)
        self.env = make_env(self.task, self.options)
        self.env.present = self.env.observe()
        self.steps = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        if newest is not None:
            self._restore(newest)
        elif options.start_from is not None:
            self._warm_start(options.start_from)
        if newest is None:
            runs.say_begun(options.resume, self.folder)
        if self.hosts.agreed(self.steps) != self.steps:
            raise InputError(
                f"host {options.host} resumes at {self.steps} steps, host 0 elsewhere: run again from one of both"
            )
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            runs.mark(self.folder, _begun_with(options))
        except OSError as error:
            raise InputError(f"cannot write to {self.folder}: {error.strerror}") from error

    def _handovers(self, options: TrainOptions) -> Handovers:
        """Those that this run recorded when it began; recorded now where it begins."""

        def make() -> Handovers:
            from policies.learning.handovers import record

            skills = load_skills(options.handovers, self.task.robot.name)
            return record(skills, options.seed, options.threads, Console(stderr=True).print)

        return self._made_once(HANDOVERS, make, lambda file: Handovers.load(file, self.task.robot), options)

    def _ways(self, options: TrainOptions) -> Ways:
        """Those that this run planned when it began; planned now where it begins."""

        def make() -> Ways:
            from policies.learning.ways import planned_ways

            return planned_ways(self.task.robot, options.ways, options.seed, Console(stderr=True).print, options.haste)

        return self._made_once(WAYS, make, Ways.load, options)

    def _made_once(
        self, name: str, make: Callable[[], Made], load: Callable[[Path], Made], options: TrainOptions
    ) -> Made:
        """What the run's file of that name holds, made where it is not there yet."""
        file = self.folder / name
        if not file.exists():
            made = make()
            self.folder.mkdir(parents=True, exist_ok=True)
            runs.mark(self.folder, _begun_with(options))
            with replacing(file) as partial:
                made.save(partial)
        return load(file)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def command(self) -> str:
        """The command that makes this run's result from nothing, however often it was stopped and resumed."""
        o = self.options
        robot = ["--robot", o.robot] if o.robot != DEFAULT else []
        words = ["barkour", "train", o.skill, *robot, "--backend", o.backend, "--steps", o.steps, "--seed", o.seed]
        words += ["--worlds", o.worlds]
        words += ["--hosts", o.hosts] if o.hosts > 1 else []
        words += ["--start-from", o.start_from] if o.start_from else []
        for name in CHOSEN:
            value = getattr(o, name)
            given = [f"--{name}"] if value is True else [f"--{name}", value]
            words += given if value != BEGUN[name] else []
        return shlex.join(map(str, words))

    def description(self) -> dict[str, Any]:
        """What a checkpoint says about itself besides its arrays; the exporter reads it."""
        return {
            "format": CHECKPOINT_FORMAT,
            **describe(self.options.skill, self.task, self.learner),
            "backend": self.options.backend,
            "steps": self.steps,
            "seed": self.options.seed,
            "worlds": self.options.worlds,
            "hosts": self.options.hosts,
            **{name: getattr(self.options, name) for name in CHOSEN},
            "seconds": self.seconds,
            "command": self.command(),
            "commit": self.commit,
        }

    def save(self) -> Path:
        """Writes a checkpoint that continues this run exactly."""
        arrays, values = self.env.save()
        arrays = {f"env/{name}": np.asarray(array) for name, array in arrays.items()}
        for name, tree in self.state._asdict().items():
            arrays |= checkpoint.flatten(tree, name)
        arrays |= {"present/state": self.env.present[0], "present/privileged": self.env.present[1]}
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        values = {**self.description(), "env": values, "history": self.history}
        return checkpoint.save(self.checkpoints, self.steps, arrays, values)

    def save_start(self, folder: Path) -> Path:
        """Writes parameters and statistics alone: enough for `--start-from`, small enough to ship."""
        kept = {name: getattr(self.state, name) for name in TAKEN_OVER}
        arrays = {k: v for name, tree in kept.items() for k, v in checkpoint.flatten(tree, name).items()}
        return checkpoint.write(folder, arrays, self.description())

    def _parameters(self, path: Path, fields: tuple[str, ...]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays, values = checkpoint.load(path)
        ours = self.description()
        if not self.options.resume and values.get("robot") != self.task.robot.name:
            arrays = self._translated(arrays, values)
            values = {**values, "robot": self.task.robot.name}
        if not self.options.resume and self.task.preview.seconds and not values["layout"].get("preview"):
            before = replace(self.task.layout, preview=Preview())
            if values["layout"] == json.loads(json.dumps(before.to_dict())):
                arrays = widened(arrays, before, self.task.layout)
                values = {**values, **{key: json.loads(json.dumps(ours[key])) for key in ("layout", "sizes")}}
        for key in ("format", "skill", "robot", "layout", "sizes"):
            if key == "skill" and not self.options.resume:
                continue
            if values.get(key) != json.loads(json.dumps(ours[key])):
                raise InputError(f"checkpoint {path} is of another environment: its {key} differs from this one's")
        found = {name: checkpoint.unflatten(getattr(self.state, name), arrays, name) for name in fields}
        self.state = jax.tree.map(jax.numpy.asarray, self.state._replace(**found))
        return arrays, values

    def _translated(self, arrays: dict[str, np.ndarray], values: dict[str, Any]) -> dict[str, np.ndarray]:
        """Another robot's parameters in the terms of ours, with a preview if they had one."""
        preview = self.task.preview if values.get("layout", {}).get("preview") else Preview()
        source: Task = TASKS[self.options.skill](robot_by_name(str(values.get("robot"))))
        return translate(arrays, *(replace(task, preview=preview) for task in (source, self.task)))

    def _restore(self, path: Path) -> None:
        arrays, values = self._parameters(path, LearnerState._fields)
        begun = {**{name: BEGUN[name] for name in ("hosts", *CHOSEN)}, **values}
        for key in ("seed", "worlds", "backend", "hosts", *CHOSEN):
            before, now = (str(value) or "none" for value in (begun[key], getattr(self.options, key)))
            if before != now:
                raise InputError(f"{self.folder} was begun with {key} {before}, not {now}")
        self.env.restore({n[4:]: a for n, a in arrays.items() if n.startswith("env/")}, values["env"])
        self.env.present = (arrays["present/state"], arrays["present/privileged"])
        self.steps, self.seconds, self.history = values["steps"], values["seconds"], values["history"]
        self._check_log()

    def _warm_start(self, source: Path) -> None:
        self._parameters(source_of(source), TAKEN_OVER)
        config = self.learner.config
        rate = jax.numpy.asarray(config.warm_learning_rate, jax.numpy.float32)
        self.state = self.state._replace(learning_rate=rate)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def iterate(self) -> dict[str, float]:
        """One iteration: collect, update, measure.

        Raises:
          DivergedError: something became not finite; the state is dumped to `diverged.npz` first.
        """
        began = time.perf_counter()
        totals: dict[str, float] = {}
        key, rollout_key = jax.random.split(self.state.key)
        if self.options.host:  # one key for the update of all, another for what each explores
            rollout_key = jax.random.fold_in(rollout_key, self.options.host)
        self.state = self.state._replace(key=key)
        try:
            rollout = collect(self.learner, self.state, self.env, rollout_key, totals)
            collected = time.perf_counter()
            self.state, losses = self.learner.update(self.state, rollout)
            losses = {name: float(value) for name, value in losses.items()}
            bad = [name for name, value in losses.items() if not np.isfinite(value)]
            if bad:
                raise DivergedError(f"loss {bad[0]}", np.zeros(1, int))
        except DivergedError:
            arrays, _ = self.env.save()
            with replacing(self.folder / "diverged.npz") as partial, partial.open("wb") as stream:
                np.savez(stream, **arrays)
            raise
        count = self.learner.config.worlds * self.learner.config.unroll
        self.steps += count
        took = time.perf_counter() - began
        self.seconds += took
        seconds = count * self.task.robot.control_period
        settled = max(totals["settled"], 1.0)
        row = {
            "steps": self.steps,
            "seconds": round(self.seconds, 2),
            "reward": totals["reward"] / seconds,
            "falls_per_10s": totals["falls"] / seconds * 10,
            "velocity_error": totals["velocity_error"] / settled,
            "yaw_error": totals["yaw_error"] / settled,
            "level": float(np.mean(np.asarray(self.env.state.level))),
            "steps_per_second": count / took,
            "update_share": 1 - (collected - began) / took,
            **{name: totals[name] / count for name in totals if name.startswith("term/")},
            **losses,
        }
        if totals.get("passed"):
            row |= {"clean_rate": totals["clean"] / totals["passed"], "width": totals["width"] / totals["passed"]}
        kinds = np.asarray(self.env.state.kind)
        for i, name in enumerate(self.task.ground.kinds):
            here = kinds == i
            row[f"level/{name}"] = float(np.asarray(self.env.state.level)[here].mean()) if here.any() else 0.0
        self.history.append({name: float(f"{value:.6g}") for name, value in row.items()})
        return row

    def train(self, console: Console) -> dict[str, Any]:
        """Runs to the last step, or to Ctrl-C, which saves first.

        Returns:
          The summary, also written to `summary.json`.
        """
        from tensorboardX import SummaryWriter

        logging.getLogger("jax").setLevel(logging.WARNING)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        interrupted, saved = False, time.perf_counter()
        writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.steps + 1 if self.steps else None)
        self._cut_log()
        with (
            alone(self.folder, "trains"),
            runs.stopping(),
            Progress(*columns, console=console) as progress,
            (self.folder / "log.jsonl").open("a") as log,
        ):
            bar = progress.add_task(self.options.skill, total=self.total, completed=self.steps)
            try:
                while self.steps < self.total:
                    row = self.iterate()
                    log.write(json.dumps(self.history[-1]) + "\n")
                    log.flush()
                    for name, value in row.items():
                        writer.add_scalar(name, value, self.steps)
                    text = (
                        f"{self.options.skill} reward {row['reward']:.2f} error {row['velocity_error']:.3f} m/s "
                        f"{row['yaw_error']:.3f} rad/s falls {row['falls_per_10s']:.2f} level {row['level']:.1f} "
                        f"{row['steps_per_second']:.0f}/s"
                    )
                    text += f" clean {row['clean_rate']:.0%} at {row['width']:.2f} m" if "clean_rate" in row else ""
                    text += stall_warning([past["level"] for past in self.history[-3 * STALL_ITERATIONS :]])
                    progress.update(bar, completed=min(self.steps, self.total), description=text)
                    if not console.is_terminal and len(self.history) % 20 == 0:
                        console.print(f"{self.steps} {text}")
                    due = time.perf_counter() - saved > 60 * self.options.checkpoint_minutes
                    if self.hosts.agreed(due):  # all hosts at the same step, or they could not go on together
                        self.save()
                        saved = time.perf_counter()
            except KeyboardInterrupt:
                interrupted = True
            finally:
                writer.close()
        where = self.save()
        return self._finish(where, interrupted)

    def _check_log(self) -> None:
        """Raises `InputError` where the log is another run's: it does not begin with what the checkpoint knows."""
        log = self.folder / "log.jsonl"
        lines = read_text(log, LARGEST_OWN).split("\n") if os.path.lexists(log) else []
        lines = lines[:-1] if lines[-1:] == [""] else lines
        for k, (line, row) in enumerate(zip(lines, self.history, strict=False)):
            whole = json.dumps(row)
            cut = k == len(lines) - 1 and whole.startswith(line)  # the computer lost its power
            if line != whole and not cut:
                raise InputError(f"{log} is not this run's: its line {k + 1} is not what the checkpoint knows")

    def _cut_log(self) -> None:
        """The log holds what the checkpoint knows: what was logged beyond is done again."""
        with replacing(self.folder / "log.jsonl") as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in self.history))

    def finished(self) -> bool:
        """Whether all that a run leaves at its end is there: the summary comes last."""
        try:
            summary = read_own(self.folder / "summary.json")
            return summary["steps"] >= self.steps and not summary["interrupted"]
        except (OSError, ValueError, TypeError, KeyError):
            return False

    def finish(self) -> dict[str, Any]:
        """What is left to do when all steps are done; returns the summary."""
        with alone(self.folder, "trains"):
            self._cut_log()
            return self._finish(self.checkpoints / f"step_{self.steps:012d}", interrupted=False)

    def _finish(self, where: Path, interrupted: bool) -> dict[str, Any]:
        curves.plot(self.history, self.folder / "curve.png", title=self.options.skill)
        tail = self.history[-max(1, len(self.history) // 20) :]
        names = ("reward", "velocity_error", "yaw_error", "falls_per_10s", "level", "steps_per_second")
        description = self.description()
        summary = {
            **{key: description[key] for key in ("skill", "backend", "steps", "seed", "worlds", "command", "commit")},
            "minutes": round(self.seconds / 60, 2),
            "interrupted": interrupted,
            "last": {name: round(float(np.mean([row[name] for row in tail])), 4) for name in names} if tail else {},
            "checkpoint": str(where),
            "curve": str(self.folder / "curve.png"),
        }
        if not interrupted and self.options.host == 0:
            bundle = self.folder / f"{self.options.skill}.onnx"
            export(ExportOptions(where, bundle, force=True))
            summary["bundle"] = str(bundle)
            summary["start"] = str(self.save_start(self.folder / "start"))
        with replacing(self.folder / "summary.json") as partial:
            partial.write_text(json.dumps(summary, indent=2) + "\n")
        return summary


def stall_warning(levels: Sequence[float]) -> str:
    """A warning for the progress line where the curriculum's mean level no longer rises, else nothing.

    `levels` is the mean level after each iteration. A curriculum near its top has nowhere to rise to.
    """
    if len(levels) < 3 * STALL_ITERATIONS or levels[-1] > LEVELS - 1.5:
        return ""
    older, old, new = (float(np.mean(part)) for part in np.split(np.array(levels[-3 * STALL_ITERATIONS :]), 3))
    if new - old < STALL_RISE and old - older < STALL_RISE:
        return f" CURRICULUM STALLED at level {new:.1f} of {LEVELS - 1}"
    return ""


def source_of(given: Path) -> Path:
    """The checkpoint meant: the newest of a run, or itself; `models/SKILL` in every folder is the shipped one."""
    if not given.exists() and given.parts[:1] == ("models",):
        given = shipped().joinpath(*given.parts[1:])
    return checkpoint.latest(given / "checkpoints") or given


def _begun_with(options: TrainOptions) -> dict[str, Any]:
    """What tells runs in one folder apart."""
    names = ("skill", "robot", "backend", "seed", "worlds", "hosts", "host", *CHOSEN)
    return {"by": "barkour train", **{name: getattr(options, name) for name in names}}


def train(options: TrainOptions) -> Trained:
    """Trains (or continues) a specialist; see `TrainOptions`. Raises `InputError` on unusable options."""
    if options.backend == "cpu":
        need_memory(options.worlds / options.hosts * WORLD_BYTES, f"--worlds {options.worlds}")
    check_xla()
    console = Console(stderr=True)
    folder = options.folder if options.host == 0 else options.folder / f"host_{options.host}"
    with alone(folder, "trains"):
        return _train(options, console)


def _train(options: TrainOptions, console: Console) -> Trained:
    run = Run(options)
    if run.steps >= run.total:
        if not run.finished():  # killed after its last checkpoint
            return Trained.of(run.finish())
        raise InputError(f"{options.folder} has already {run.steps} steps: ask for more than that with --steps")
    devices = ", ".join(str(d) for d in run.learner.mesh.devices.flat)
    count, of = run.options.worlds, run.learner.config.minibatches
    rounded = "" if count == options.worlds else f" (of the {options.worlds} asked for: they are a multiple of {of})"
    console.print(f"{options.skill}: {count} worlds{rounded} on {options.backend}, learner on {devices}")
    try:
        return Trained.of(run.train(console))
    except DivergedError as error:
        raise InputError(f"training stopped: {error}; the state is in {run.folder / 'diverged.npz'}") from error
