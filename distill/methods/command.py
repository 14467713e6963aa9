"""`barkour recipe list | show NAME | run NAME | sweep [NAME ...]`: what the front door calls."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.core.errors import DistillError
from distill.methods.catalogue import catalogue, find
from distill.methods.run import plan, run, sweep
from sim.errors import InputError


def recipe(
    what: str, names: Sequence[str] = (), seed: int = 0, seeds: int = 0, out: Path = Path("runs/recipes"),
    data: Path | None = None, preset: str = "small", domain: str = "", budget: float = 1.0, workers: int = 0,
    only_plan: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """One of the four; options as of `run.run`. `only_plan` gives the real scale's plan in place of a run.

    Raises:
      InputError: unknown or too many names, bad options, bad data, a folder that cannot be used.
    """
    wanted = {"list": (0, 0), "show": (1, 1), "run": (1, 1), "sweep": (0, 10**6)}
    if what not in wanted:
        raise InputError(f"recipe takes {', '.join(wanted)}, not '{what}'")
    least, most = wanted[what]
    if not least <= len(names) <= most:
        raise InputError(f"recipe {what} takes {'one name' if least else 'no name'}, got {list(names)}")
    try:
        if what == "list":
            return catalogue()
        if what == "show":
            return find(names[0]).on(domain).about()
        if only_plan:
            plans = [plan(find(name).on(domain)) for name in names]
            return plans[0] if what == "run" else {"plans": plans}
        options: dict[str, Any] = {
            "seed": seed, "seeds": seeds, "out": out, "data": data, "preset": preset, "domain": domain,
            "budget": budget, "workers": workers,
        }  # fmt: skip
        return run(names[0], **options) if what == "run" else sweep(names, **options)
    except DistillError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror or error}") from error
