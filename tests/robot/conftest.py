"""What several tests of the onboard loop look at."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from robot.options import OnboardOptions
from robot.transports.simulation import onboard_in_simulation


@dataclass(frozen=True)
class CourseRuns:
    """Whole courses through the loop."""

    of: tuple[tuple[str, int], ...]
    """Policy and seed of each."""
    results: list[dict[str, Any]]
    recording: Path
    """Of the first."""


@pytest.fixture(scope="session")
def course_runs(tmp_path_factory: pytest.TempPathFactory) -> CourseRuns:
    """One run each of generalist and specialists, the first one recorded."""
    of, file = (("generalist", 1), ("specialists", 0)), tmp_path_factory.mktemp("course") / "run.mcap"
    results = [
        onboard_in_simulation(OnboardOptions(policy, seed=seed, record=file if k == 0 else None), log=lambda text: None)
        for k, (policy, seed) in enumerate(of)
    ]
    return CourseRuns(of, results, file)
