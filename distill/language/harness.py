"""Tasks of EleutherAI's evaluation harness (package `lm-eval`), asked of a student and its teacher alike.

The harness brings its tasks, and downloads their data; a task of one's own is its YAML file, of the same name.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from distill.core.errors import DistillError, first_line

BOOTSTRAPS = 1000
"""Draws for the standard error of a measure that is no mean."""
BATCH = 8


def wanted(tasks: Sequence[str]) -> list[str]:
    """Names and files, one by one: several may stand in one word, with commas between them."""
    return [name for part in tasks for name in part.split(",")]


def open_tasks(tasks: Sequence[str]) -> tuple[Any, list[str]]:
    """The harness's own index, and the names in it that `tasks` mean.

    Raises:
      DistillError: the package is missing, or knows no such task.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise DistillError("--lm-eval needs the extra lm-eval: pip install 'barkour[lm-eval]'") from error
    given = wanted(tasks)
    if "" in given or len(set(given)) < len(given):
        raise DistillError(f"--lm-eval names tasks, each once, got {','.join(tasks)!r}")
    files = {name: Path(name) for name in given if Path(name).suffix in (".yaml", ".yml")}
    for path in files.values():
        if not path.is_file():
            raise DistillError(f"the task {path} does not exist")
    with _quiet(f"the tasks {', '.join(given)} cannot be read"):
        folders: list[str | Path] = sorted({str(path.resolve().parent) for path in files.values()})
        manager: Any = TaskManager(include_path=folders or None, include_defaults=len(files) < len(given))
        known = set(manager.all_tasks)
    names = [files[name].stem if name in files else name for name in given]
    for name, task in zip(given, names, strict=True):
        if task not in known:
            why = f"whose name is {task}" if name in files else "of this name"
            raise DistillError(f"--lm-eval {name}: lm-eval has no task {why}")
    return manager, names


def asked(tasks: Sequence[str], models: Mapping[str, Any], tokenizer: Any, limit: int) -> dict[str, Any]:
    """Causal models, by what they are called, on tasks; `limit` examples of each, 0: all.

    Returns:
      `tasks`: task -> measure -> model -> `value` and, where there is one, `error` (standard error); `examples`:
      task -> how many were asked of how many; `version` of the harness.

    Raises:
      DistillError: as `open_tasks`, or what the harness fails with, as where data cannot be downloaded.
    """
    manager, names = open_tasks(tasks)
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    evaluate: Any = lm_eval.simple_evaluate
    made: Any = HFLM
    found: dict[str, dict[str, dict[str, Any]]] = {}
    examples: dict[str, list[int]] = {}
    for who, model in models.items():
        with _quiet(f"lm-eval fails on {', '.join(names)}"):
            harness: Any = made(pretrained=model, tokenizer=tokenizer, batch_size=BATCH, device=str(model.device))
            told: Any = evaluate(
                model=harness, tasks=names, task_manager=manager, limit=limit or None, bootstrap_iters=BOOTSTRAPS,
                log_samples=False,
            )  # fmt: skip
        for task, measures in told["results"].items():
            for key, value in measures.items():
                measure, _, how = key.partition(",")
                if not how or measure.endswith("_stderr") or isinstance(value, str | bool):
                    continue
                error = measures.get(f"{measure}_stderr,{how}")
                one = {"value": float(value)} | ({"error": float(error)} if isinstance(error, float) else {})
                name = measure if how == "none" else f"{measure} ({how})"
                found.setdefault(task, {}).setdefault(name, {})[who] = one
        counts = told.get("n-samples", {})
        examples |= {task: [int(count["effective"]), int(count["original"])] for task, count in counts.items()}
    return {"tasks": found, "examples": examples, "version": lm_eval.__version__}


def together(before: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """What was found with what was known: tasks asked anew replace the older figures; other versions' are dropped."""
    if before.get("version") != found["version"]:
        return dict(found)
    return {**found, **{name: {**before[name], **found[name]} for name in ("tasks", "examples")}}


def table(found: Mapping[str, Any]) -> list[str]:
    """Lines of a Markdown table of what `asked` found, a column a model."""
    who = list(dict.fromkeys(w for measures in found["tasks"].values() for each in measures.values() for w in each))
    lines = [f"| lm-eval {found['version']} | {' | '.join(who)} |", f"|---|{'---|' * len(who)}"]
    for task, measures in found["tasks"].items():
        count = found["examples"].get(task)
        about = "" if count is None else f", {count[0]} of {count[1]} examples"
        for name, each in measures.items():
            values = " | ".join(_value(each[w]) if w in each else "-" for w in who)
            lines.append(f"| {task}: {name}{about} | {values} |")
    return lines


def _value(one: Mapping[str, float]) -> str:
    return f"{one['value']:.4g}" + (f" +- {one['error']:.2g}" if "error" in one else "")


@contextmanager
def _quiet(what: str) -> Iterator[None]:
    """What a block prints goes to standard error, and what it raises is one line that begins with `what`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with redirect_stdout(sys.stderr):
            yield
    except Exception as error:  # the harness, its tasks' own code and their downloads raise whatever they like
        reason = first_line(error)
        raise DistillError(f"{what}: {reason[:200]}") from error
