"""Runs recipes: seeds side by side, finished arms kept, one verdict."""

import contextlib
import itertools
import math
import os
import re
import shutil
import signal
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import asdict, is_dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from distill.core.checkpoints import plain, write_json
from distill.core.errors import DistillError, first_line
from distill.core.folders import end_with_parent, hold
from distill.core.reading import read_json
from distill.language.data import Corpus, read_folder
from distill.language.models import sharding
from distill.methods import cluster
from distill.methods.catalogue import find
from distill.methods.claims import judge
from distill.methods.claims import summary as conclusion
from distill.methods.framework import Recipe, Trial, one_seed, processors
from distill.methods.options import SMALL, ExperimentOptions
from distill.methods.plot import plot
from distill.methods.results import chance, excluded
from distill.methods.statistics import Interval, Results, verdict
from sim.machine import need_memory
from sim.robots.description import DEFAULT, robot_by_name
from sim.signals import unheard

OPTIONS, ARMS, RESULT, PICTURE, STUDENTS = "options.json", "arms.json", "result.json", "result.png", "students"
WORKER_BYTES = 300e6
"""What a process takes of memory before it has any model: 400 MB were measured."""


def run(
    recipe: Recipe | str, asked: ExperimentOptions = ExperimentOptions(), console: Console | None = None
) -> dict[str, Any]:
    """Runs a recipe's experiment, or what is left of it, in `out/NAME`; on other domains in `out/NAME_DOMAIN`, on
    another robot in `out/NAME_robot_ROBOT`, and with presets that ask something else of their own in `out/NAME_PRESET`.

    `workers` are processes side by side, one seed each. The small experiment computes with one thread a process, so
    that results do not depend on their number.

    Returns:
      `name`, `claim`, `verdict`, `claims` (figure, interval, power and verdict of each), `checks`, `arms` (name ->
      `metric`, `mean`, `ci95`, `n_seeds`, `all` measures), `seconds` (of computing, over all processes), `seed`, and
      what it was run with; also in `result.json` there.

    Raises:
      DistillError: unknown names, too small a budget, bad data, a folder of other options, or an arm that failed.
    """
    recipe = (find(recipe) if isinstance(recipe, str) else recipe).on(asked.domain, asked.preset)
    recipe.check_budget(asked.budget)
    options, corpus = _options(recipe, asked)
    chosen = seeds_of(recipe, asked)
    folder = folder_of(recipe, asked)
    through = cluster.executor(folder / "jobs", asked.slurm, asked.workers) if asked.pool == "slurm" else None
    lock = hold(folder)
    try:
        return _run(recipe, asked, folder, chosen, options, corpus, console or Console(stderr=True), through)
    finally:
        lock.release()


def seeds_of(recipe: Recipe, asked: ExperimentOptions) -> list[int]:
    """Those that an experiment is asked for. Without a first one as many in a row as the verdict takes, or more where
    more are asked for, hold no pilot's; fewer begin with the same one."""
    count, first = asked.seeds or recipe.seeds, asked.seed
    if first is None:
        pilot, whole = recipe.pilot, max(count, recipe.seeds)
        first = next(seed for seed in itertools.count() if pilot.isdisjoint(range(seed, seed + whole)))
    return list(range(first, first + count))


def folder_of(recipe: Recipe, asked: ExperimentOptions) -> Path:
    """Where a recipe's results are, those on a domain, on a robot and with a preset."""
    domain = asked.domain or recipe.domains[0]
    other = [domain] * (domain != recipe.domains[0]) + [*_robot(asked).values()]
    other += [asked.preset] * (asked.preset in recipe.by_preset)
    return Path(asked.out) / "_".join([recipe.name, *other])


def _robot(asked: ExperimentOptions) -> dict[str, str]:
    """The `robot` where it is another than that of whoever names none. Raises `InputError` for an unknown one."""
    if asked.robot in ("", DEFAULT):
        return {}
    return {"robot": robot_by_name(asked.robot).name}


def _run(
    recipe: Recipe,
    asked: ExperimentOptions,
    folder: Path,
    chosen: Sequence[int],
    options: dict[str, Any],
    corpus: Corpus | None,
    console: Console,
    through: Any = None,
) -> dict[str, Any]:
    _claim(folder, options)
    check_places(folder, (RESULT, PICTURE))
    left = [s for s in chosen if not set(recipe.arms) <= set(arms_of(recipe, folder, s))]
    jobs = [(recipe, folder, s, options, corpus) for s in left]
    workers = min(asked.workers or processors(), max(len(left), 1))
    if through is None:
        need_memory(workers * WORKER_BYTES, f"--workers {workers}")
    with _Progress(recipe, folder, chosen, console) as progress:
        if through is not None:
            own = [(folder / f"seed_{job[2]}", job) for job in jobs]
            cluster.side_by_side(_seed, own, through, progress.show)
        elif workers == 1 or asked.preset not in SMALL:
            for job in jobs:
                _seed(*job, progress.show)
        else:
            _side_by_side(jobs, workers, progress)
    return summary(recipe, folder, chosen, options)


def summary(recipe: Recipe, folder: Path, seeds: Sequence[int], options: dict[str, Any]) -> dict[str, Any]:
    """The result over `seeds` that are all finished; writes `result.json` and `result.png`."""
    kept = {s: arms_of(recipe, folder, s) for s in seeds}
    rows = {s: {arm: found["measures"] for arm, found in arms.items()} for s, arms in kept.items()}
    results = Results(rows, recipe.metric)
    try:
        checks = list(recipe.rule(results))
        judged = judge(recipe.claims, results, checks)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if isinstance(error, DistillError):
            raise
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise DistillError(f"what {folder} holds is not what {recipe.name} measures ({reason})") from error
    result = {
        "name": recipe.name, "title": recipe.title, "source": recipe.source, "claim": recipe.claim,
        "verdict": conclusion(judged) if judged else verdict(checks),
        "claims": [one.about() for one in judged], "checks": [vars(check) for check in checks],
        "arms": {arm: _arm(recipe, results, arm) for arm in recipe.arms},
        "seconds": round(sum(found["seconds"] for arms in kept.values() for found in arms.values()), 1),
        "seed": seeds[0], "seeds": list(seeds), "metric": recipe.metric, "out": str(folder), **options,
    }  # fmt: skip
    result["plot"] = str(plot(result, results, folder / PICTURE))
    write_json(folder / RESULT, plain(result))
    return result


def table(results: Sequence[dict[str, Any]]) -> str:
    """Claims and verdicts as a Markdown table: one line for each claim, and one for a recipe that has none."""
    lines = [
        "| recipe | claim | figure, mean with its interval | seeds | power | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        if "error" in result:
            lines.append(f"| {result['name']} | | failed: {result['error']} | | | |")
            continue
        for claim in result["claims"]:
            name = result["name"] if claim["role"] == "claim" else f"{result['name']}, {claim['role']}"
            why = f" ({claim['why']})" if claim["why"] else ""
            lines.append(
                f"| {name} | {claim['text']} | {claim['figure']}: {_figures(claim)} | {claim['seeds']} "
                f"| {powered(claim)} | **{claim['verdict']}**{excluded(claim)}{why} |"
            )
        if not result["claims"]:
            figures = "; ".join(f"{name} {_figures(arm, 'ci95')}" for name, arm in result["arms"].items())
            lines.append(
                f"| {result['name']} | {result['claim']} | {result['metric']}: {figures} | {len(result['seeds'])} | "
                f"| **{result['verdict']}** |"
            )
    return "\n".join(lines) + "\n"


def powered(claim: dict[str, Any]) -> str:
    """A claim's power for the effect worth finding, in short."""
    known = "not known" if claim["power"] is None else chance(claim["power"])
    return f"{known} for {claim['effect']:g}"


def plan(recipe: Recipe | str) -> dict[str, Any]:
    """What the recipe takes at real scale, found without weights and without a network.

    Returns:
      `name`, `devices`, `gigabytes`, `tokens`, `command` and `models`: role -> `published`, `config` and the sharding
      plan of `language.models.sharding`.
    """
    recipe = find(recipe) if isinstance(recipe, str) else recipe
    scale = recipe.scale
    if scale is None:
        raise DistillError(f"{recipe.name} has no preset for real scale")
    models = {
        role: {
            "published": name,
            "config": plain(asdict(shape)),
            **sharding(shape, scale.devices, scale.gigabytes, shape.kind),
        }
        for role, (name, shape) in scale.models.items()
    }
    command = f"accelerate launch --num_processes {scale.devices} -m barkour recipe run {recipe.name} --preset real"
    return {
        "name": recipe.name, "devices": scale.devices, "gigabytes": scale.gigabytes, "tokens": scale.tokens,
        "command": f"{command} --data FOLDER", "models": models,
    }  # fmt: skip


def _options(recipe: Recipe, asked: ExperimentOptions) -> tuple[dict[str, Any], Corpus | None]:
    data, preset = asked.data, asked.preset
    presets = recipe.presets or {"small": None}
    if preset not in SMALL and recipe.scale and torch.cuda.device_count() < recipe.scale.devices:
        needs = f"{recipe.scale.devices} devices of {recipe.scale.gigabytes:g} GB"
        raise DistillError(f"preset '{preset}' of {recipe.name} needs {needs}, here are {torch.cuda.device_count()}")
    corpus = None
    if data is not None:
        corpus = read_folder(data)
        if not any(getattr(corpus, part) for part in recipe.reads):
            wanted = " or ".join(recipe.reads) or "no real data at all"
            raise DistillError(f"{recipe.name} reads {wanted}, which {data} does not hold")
    settings = presets[preset]
    return {
        "preset": preset, "domain": asked.domain or recipe.domains[0], "budget": asked.budget, **_robot(asked),
        "data": str(data) if data else None, "save": asked.save,
        "settings": plain(asdict(settings)) if is_dataclass(settings) and not isinstance(settings, type) else {},
    }, corpus  # fmt: skip


def _claim(folder: Path, options: dict[str, Any]) -> None:
    """Begins the folder, or makes sure that it was begun with the same options."""
    path = folder / OPTIONS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begun = os.path.lexists(path)
        known: Any = read_json(path) if begun else {}
        if not isinstance(known, dict):
            raise ValueError(f"{path.name} holds no options")
        if not begun and any(folder.glob(f"seed_*/{ARMS}")):
            raise ValueError(f"there are results, but no {path.name} that says how they were measured")
    except (OSError, ValueError) as error:
        raise DistillError(f"{folder} cannot be used: {error}") from error
    if not begun:
        write_json(path, options)
        return
    for name, value in {"robot": None, **plain(options)}.items():
        was = known.get(name, False if name == "save" else None)
        if was != value or isinstance(was, bool) != isinstance(value, bool):
            was = str(was)[:200]
            raise DistillError(f"{folder} was begun with {name} {was}, not {value}: choose another --out")


def check_places(folder: Path, names: Sequence[str]) -> None:
    """Raises `DistillError` where a file could not be written after hours of work: it, or its part, is a folder."""
    for name in names:
        for path in (folder / name, (folder / name).with_suffix(".partial")):
            if path.is_dir() and not path.is_symlink():
                raise DistillError(f"cannot write {folder / name}: {path} is a folder")


def arms_of(recipe: Recipe, folder: Path, seed: int) -> dict[str, Any]:
    """Arm -> `measures` and `seconds`, of a seed of a folder that `run` wrote; arms that the recipe has no longer are
    left out. Raises `DistillError` where they cannot be what `run` wrote."""
    path = folder / f"seed_{seed}" / ARMS
    try:
        found = read_json(path, parse_int=_known, parse_float=_known) if os.path.lexists(path) else {}
        for arm, one in found.items():
            main = one["measures"].get(recipe.metric, None if arm in recipe.arms else 0)
            numbers = [main, one["seconds"]]
            if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
                raise ValueError(f"what it says of '{arm}' is no result")
            if not math.isfinite(main) or not 0 <= one["seconds"] < math.inf:
                raise ValueError(f"what it says of '{arm}' cannot be")
        return {arm: one for arm, one in found.items() if arm in recipe.arms}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise DistillError(f"{path} is damaged ({error}): delete it to run this seed again") from error


def _known(digits: str) -> float:
    """A number that a float can hold, as every measure is averaged; raises `OverflowError`."""
    number = float(digits) if set(".eE") & set(digits) else int(digits)
    if math.isinf(float(number)):
        raise OverflowError(f"{digits[:20]} is too large")
    return number


def _finished(recipe: Recipe, folder: Path) -> list[int]:
    names = (path.name.removeprefix("seed_") for path in folder.glob("seed_*"))
    seeds = sorted(int(name) for name in names if re.fullmatch(r"0|[1-9][0-9]{,18}", name))
    return [s for s in seeds if set(recipe.arms) <= set(arms_of(recipe, folder, s))]


def kept_arms(recipe: Recipe, folder: Path) -> dict[int, dict[str, Any]]:
    """Finished seed -> arm -> `measures` and `seconds`, of a folder that `run` wrote."""
    return {seed: arms_of(recipe, folder, seed) for seed in _finished(recipe, folder)}


def _seed(
    recipe: Recipe, folder: Path, seed: int, options: dict[str, Any], corpus: Corpus | None, show: Any = None
) -> None:
    kept, mine = arms_of(recipe, folder, seed), folder / f"seed_{seed}"
    mine.mkdir(exist_ok=True)
    check_places(mine, (ARMS,))
    threads = torch.get_num_threads()
    trial = Trial(
        seed, mine, recipe.presets.get(options["preset"]), options["budget"], corpus, options["domain"],
        {arm: found["measures"] for arm, found in kept.items()},
        students=mine / STUDENTS if options["save"] else None, robot=options.get("robot", DEFAULT),
    )  # fmt: skip

    def keep(arm: str, measures: dict[str, Any], seconds: float) -> None:
        kept[arm] = {"measures": measures, "seconds": round(seconds, 2)}
        write_json(mine / ARMS, kept)
        if show:
            show()

    try:
        if options["preset"] in SMALL:
            torch.set_num_threads(1)
        one_seed(recipe, trial, keep)
    finally:
        torch.set_num_threads(threads)
    for rest in mine.iterdir():
        if rest.is_dir() and rest.name != STUDENTS:
            shutil.rmtree(rest, ignore_errors=True)
        elif rest.suffix == ".call":
            rest.unlink(missing_ok=True)


def _side_by_side(jobs: Sequence[tuple], workers: int, progress: "_Progress") -> None:
    before, futures = active_children(), set[Future]()
    with contextlib.ExitStack() as ending:
        try:
            with unheard(signal.SIGTERM):  # a child that is only half begun would end with a traceback
                pool = ending.enter_context(ProcessPoolExecutor(workers, get_context("spawn"), _begin))
                futures = {pool.submit(_seed, *job) for job in jobs}
            while futures:
                done, futures = wait(futures, timeout=1.0, return_when="FIRST_EXCEPTION")
                progress.show()
                for future in done:
                    future.result()
        except BaseException as error:
            for future in futures:
                future.cancel()
            if not isinstance(error, Exception):  # asked to end: arms at work, of minutes or hours, are not waited for
                for child in set(active_children()).difference(before):
                    child.terminate()
            raise


def _begin() -> None:
    """In a child, which begins without an ear for SIGTERM."""
    end_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _arm(recipe: Recipe, results: Results, arm: str) -> dict[str, Any]:
    rows = [row[arm] for row in results.rows.values()]
    names = [name for name in rows[0] if all(isinstance(row.get(name), int | float) for row in rows)]
    every = {name: _interval(results.mean(arm, name)) for name in names if name != recipe.metric}
    return {"metric": recipe.metric, **_interval(results.mean(arm)), "about": recipe.arms[arm].about, "all": every}


def _interval(found: Interval) -> dict[str, Any]:
    ci95 = [found.low, found.high] if found.n > 1 else None
    return {"mean": found.mean, "ci95": ci95, "n_seeds": found.n}


def _figures(found: dict[str, Any], interval: str = "ci") -> str:
    ends = found[interval]
    return f"{found['mean']:.4g}" + (f" [{ends[0]:.4g}, {ends[1]:.4g}]" if ends else "")


class _Progress:
    """A bar over arms and seeds on standard error; silent lines where it is no terminal."""

    def __init__(self, recipe: Recipe, folder: Path, seeds: Sequence[int], console: Console) -> None:
        self.recipe, self.folder, self.seeds, self.console = recipe, folder, seeds, console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console)
        self.bar = self.progress.add_task(recipe.name, total=len(seeds) * len(recipe.arms))
        self.began, self.seen = time.perf_counter(), -1

    def __enter__(self) -> "_Progress":
        self.progress.start()
        self.show()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self) -> None:
        """Counts the arms on disk."""
        done = sum(len(arms_of(self.recipe, self.folder, seed)) for seed in self.seeds)
        self.progress.update(self.bar, completed=done)
        if done != self.seen and not self.console.is_terminal:
            total = len(self.seeds) * len(self.recipe.arms)
            self.console.print(f"{self.recipe.name}: {done} of {total} arms, {time.perf_counter() - self.began:.0f} s")
        self.seen = done
