"""How near recordings come to the limits."""

import json
from pathlib import Path

import numpy as np
import pytest

from robot.bench import limits
from robot.loop.recording import read, write
from robot.loop.transport import State

RECORDING = Path(__file__).parents[1] / "loop" / "recordings" / "specialists_seed_3.mcap"


def rewritten(to: Path, change) -> Path:
    found = read(RECORDING)
    steps = found.steps.copy()
    change(steps)
    write(to, found.header, steps, {})
    return to


def test_a_course_stays_inside_every_limit(capsys):
    assert limits.main([str(RECORDING), "--json"]) == 0
    for name, row in json.loads(capsys.readouterr().out).items():
        if name == "target_start":  # held only after the drives had to wait
            continue
        inside = row["worst"] >= row["limit"] if name in limits.LEAST else row["worst"] <= row["limit"]
        assert inside and np.isfinite(list(row.values())).all(), name


@pytest.mark.parametrize(
    ("name", "field", "index", "value", "worst"),
    [("joint_speed", "velocity", 4, -40.0, 40.0), ("torque_share", "effort", 2, 36.0, 2.0),
     ("clearance", "pose", 2, -1.0, None), ("tilt", "orientation", slice(None), [0.0, 1.0, 0.0, 0.0], np.pi)],
)  # fmt: skip
def test_one_step_that_goes_too_far_is_the_worst(tmp_path, name, field, index, value, worst):
    def change(steps):
        k = int(np.flatnonzero(steps["state"] == State.RUNNING)[50])
        steps[field][k, index] = value

    before = limits.distribution([RECORDING])[name]
    after = limits.distribution([RECORDING, rewritten(tmp_path / "odd.mcap", change)])[name]
    assert after["worst"] == pytest.approx(worst, rel=1e-3) if worst else after["worst"] < before["limit"]
    assert abs(after["median"] - before["median"]) < 0.01 * abs(before["limit"])


def test_a_recording_in_which_nothing_ran_is_one_line(tmp_path, capsys):
    def change(steps):
        steps["state"] = State.DISARMED

    assert limits.main([str(rewritten(tmp_path / "idle.mcap", change))]) == 2
    assert limits.main([str(tmp_path / "none.mcap")]) == 2
    assert capsys.readouterr().err.count("\n") == 2
