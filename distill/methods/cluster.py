"""Seeds of an experiment as jobs of a cluster that runs Slurm, through submitit (extra `cluster`).

submitit and not Ray: seeds are batch jobs that write what they found to a folder that all machines see, as clusters of
universities and labs have; nothing has to be kept running between them, and Slurm's own queue does the sharing.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distill.core.errors import DistillError, first_line
from distill.core.folders import hold

SHARED = ("timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "name")
"""Parameters that submitit has for every kind of executor; all others are Slurm's own."""
DEFAULTS = {"timeout_min": 24 * 60, "cpus_per_task": 1, "name": "barkour"}
WAIT = 1.0
"""Seconds between looks at the jobs."""


def parameters(given: Sequence[str], at_once: int = 0) -> dict[str, Any]:
    """`NAME=VALUE` words as submitit takes them, beside the defaults; `at_once` jobs run together, 0: all.

    Raises:
      DistillError: a word of another form.
    """
    found: dict[str, Any] = dict(DEFAULTS)
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier() or not value:
            raise DistillError(f"--slurm takes NAME=VALUE such as partition=long or timeout_min=600, got '{word}'")
        found[name if name in SHARED else f"slurm_{name}"] = int(value) if value.isdecimal() else value
    return found | ({"slurm_array_parallelism": at_once} if at_once else {})


def executor(folder: Path, given: Sequence[str] = (), at_once: int = 0, kind: str = "slurm") -> Any:
    """submitit's, whose files go to `folder`; `kind` as submitit names clusters: slurm, or local and debug for trials.

    Raises:
      DistillError: the package or Slurm is not here, or a parameter that submitit does not know.
    """
    try:
        import submitit
    except ImportError as error:
        raise DistillError("--pool slurm needs the extra cluster: pip install 'barkour[cluster]'") from error
    if kind == "slurm" and submitit.SlurmExecutor.affinity() < 0:
        raise DistillError("--pool slurm: there is no Slurm on this machine (no srun)")
    try:
        found = submitit.AutoExecutor(folder=folder, cluster=kind)
        found.update_parameters(**parameters(given, at_once))
    except (NameError, TypeError, ValueError, AssertionError) as error:
        raise DistillError(f"--slurm: {first_line(error)}") from error
    return found


def side_by_side(
    work: Callable[..., None], jobs: Sequence[tuple[Path, tuple[Any, ...]]], through: Any, show: Callable[[], None]
) -> None:
    """`work(*arguments)` of every job, each with its folder to itself; ends when all have.

    Ctrl-C and a job that fails call all others off. Arguments and `work` are pickled.

    Raises:
      DistillError: what a job raised, or where to look for how it ended.
    """
    with through.batch():
        started = [through.submit(_alone, work, folder, arguments) for folder, arguments in jobs]
    left = list(started)
    try:
        while left:
            show()
            for job in [job for job in left if job.done()]:
                left.remove(job)
                error = job.exception()
                said = f"a job ended without a word: see {job.paths.stderr}" if error is not None else job.result()
                if said:
                    raise DistillError(said)
            if left:
                time.sleep(WAIT)
    except BaseException:
        for job in left:
            job.cancel(check=False)
        raise
    show()


def _alone(work: Callable[..., None], folder: Path, arguments: tuple[Any, ...]) -> str:
    """On the other machine: nothing, or what went wrong in one line."""
    try:
        lock = hold(folder)  # an earlier command's job may still be at work there
        try:
            work(*arguments)
        finally:
            lock.release()
    except DistillError as error:
        return str(error)
    return ""
