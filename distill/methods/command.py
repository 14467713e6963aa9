"""`barkour recipe list | show NAME | run NAME | sweep [NAME ...]`: what the front door calls."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TypeVar

from distill.core.errors import DistillError
from distill.methods import run as experiments
from distill.methods import sweep as sweeping
from distill.methods.catalogue import find
from distill.methods.options import ExperimentOptions, ListOptions, RecipeRunOptions, ShowOptions, SweepOptions
from distill.methods.results import Catalogue, Description, Plan, Plans, RecipeVerdict, Sweep
from distill.methods.standing import catalogue, entry
from policies.learning import runs
from sim.errors import InputError

Asked = TypeVar("Asked")
Found = TypeVar("Found")


def _said_once(work: Callable[[Asked], Found]) -> Callable[[Asked], Found]:
    """The core's errors as the front door's, in one sentence."""

    @wraps(work)
    def checked(options: Asked) -> Found:
        try:
            return work(options)
        except DistillError as error:
            raise InputError(str(error)) from error
        except OSError as error:
            if not isinstance(options, ExperimentOptions):
                raise
            raise InputError(f"cannot write to {error.filename or options.out}: {error.strerror or error}") from error

    return checked


@_said_once
def listed(options: ListOptions) -> Catalogue:  # noqa: ARG001
    """The catalogue."""
    return Catalogue.of(catalogue())


@_said_once
def show(options: ShowOptions) -> Description:
    """What a recipe says about itself."""
    return Description.of(entry(options.name, options.domain, options.preset))


@_said_once
def run(options: RecipeRunOptions) -> RecipeVerdict | Plan:
    """The verdict of one experiment, or its plan."""
    recipe = find(options.name)
    if options.plan:
        return _plan(recipe.name, options.domain)
    with runs.stopping():  # a `kill` ends its processes, as Ctrl-C does
        return RecipeVerdict.of(experiments.run(recipe, options))


@_said_once
def sweep(options: SweepOptions) -> Sweep | Plans:
    """The verdicts of several, or their plans."""
    if options.plan:
        return Plans(plans=[_plan(name, options.domain) for name in options.names])
    with runs.stopping():
        if options.budget == "small":
            hours = sweeping.HOURS if options.hours is None else options.hours
            return Sweep.of(sweeping.sweep(options.names, replace(options, budget=1.0, hours=None), hours=hours))
        return Sweep.of(sweeping.sweep(options.names, options))


def _plan(name: str, domain: str) -> Plan:
    return Plan.of(experiments.plan(find(name).on(domain)))
