"""`barkour inspect`: a bundle is loaded, which checks it, and says what it is."""

from dataclasses import dataclass

from policies.bundle.options import InspectOptions
from policies.bundle.reader import Bundle
from sim.results import Result
from sim.robots.description import find_robot


@dataclass(frozen=True, kw_only=True)
class BundleReport(Result):
    """What a bundle says about itself; its metadata by their own names beside these."""

    file: str
    bytes: int
    skill: str
    robot: str
    observation_size: int
    golden_vectors: int
    """Inputs with outputs, which it reproduced."""


def inspect(options: InspectOptions) -> BundleReport:
    """Raises `InputError` as `Bundle.load` does."""
    if options.robot is not None:
        find_robot(options.robot)  # which makes it known by its name
    return BundleReport.of(Bundle.load(options.file).describe())
