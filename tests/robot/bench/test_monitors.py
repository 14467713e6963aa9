"""A campaign over the monitors goes on where it was cut, and says what came near a limit or passed it."""

import json
from pathlib import Path

import pytest

from robot.bench import monitors, ticks
from robot.loop.motion import Motion
from robot.loop.refusals import Code
from robot.loop.safety import Limits
from robot.loop.terrain import TerrainHeights
from sim.errors import InputError
from sim.localization import PoseErrors
from sim.robots.description import default_robot


def run(index: int, seed: int) -> dict:
    seen = {
        Code.GYRO: {"peak": 0.1 + 0.1 * index, "limit": 0.45},
        Code.POLICY_FROZEN: {"peak": 1.0 - 0.1 * index, "limit": 0.002},
    }
    alarms = [Code.GYRO] if seen[Code.GYRO]["peak"] > 0.45 else []
    return {"index": index, "seed": seed + index, "seconds": 900.0, "alarms": alarms, "monitors": seen}


def test_what_was_cut_goes_on_and_is_not_run_again(tmp_path, capsys, monkeypatch):
    out = tmp_path / "new" / "runs.jsonl"
    assert len(monitors.campaign(0.5, out, 7, run)) == 2
    out.write_text(out.read_text() + '{"first_seed": 7, "ind')
    tried: list[int] = []
    rows = monitors.campaign(1.0, out, 7, lambda index, seed: (tried.append(index), run(index, seed))[1])
    assert tried == [2, 3] and [row["index"] for row in rows] == [0, 1, 2, 3]
    monkeypatch.setattr(monitors, "one", run)
    assert monitors.main(["--hours", "1", "--out", str(out), "--seed", "7", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["hours"] == 1.0 and found["runs"] == 4 and found["false_alarms"] == []
    assert found["monitors"][Code.GYRO]["worst"] == pytest.approx(0.4)
    assert found["monitors"][Code.POLICY_FROZEN]["worst"] == pytest.approx(0.7)
    monitors.campaign(1.25, out, 7, run)
    assert monitors.main(["--hours", "1", "--out", str(out), "--seed", "7"]) == 1


def test_other_files_and_numbers_are_one_line(tmp_path, capsys):
    out = tmp_path / "runs.jsonl"
    monitors.campaign(0.25, out, 7, run)
    with pytest.raises(InputError):
        monitors.campaign(0.25, out, 8, run)
    out.write_text("hello\n")
    assert monitors.main(["--out", str(out)]) == 2 and monitors.main(["--hours", "nan"]) == 2
    out.write_bytes(b"\xff\xfe\n")
    assert monitors.main(["--out", str(out)]) == 2 and monitors.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 4


def test_runs_differ_in_robot_policy_course_torque_pose_and_seed():
    asked = [monitors.options_of(k, 5) for k in range(60)]
    assert len({(o.bundle, o.robot, o.course, o.torque_limit) for o in asked}) == 2 * 3 * 3 + 2 * 3
    assert len({o.seed for o in asked}) == 60 and {o.robot for o in asked} == {None, "unitree_go2"}
    assert 0 < sum(bool(PoseErrors.of(o)) for o in asked) < 60


def test_every_monitor_is_watched():
    robot = default_robot()
    motion = Motion(robot, Limits().of(robot), TerrainHeights(robot, None))
    assert {monitor.CODE for monitor in motion.every()} < set(monitors.CODES)


def test_what_monitors_cost_is_a_ratio_of_two_equal_loops(capsys, tmp_path):
    recording = Path(__file__).parents[1] / "loop" / "recordings" / "specialists_seed_3.mcap"
    assert ticks.main([str(recording), "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] > 100 and set(found["ratio"]) == {"p50", "p99"}
    assert all(found["ratio"][name] == found["on"][name] / found["off"][name] > 0.0 for name in found["ratio"])
    assert ticks.main([str(tmp_path / "none.mcap")]) == 2 == ticks.main([str(recording), "--rounds", "0"])
    assert capsys.readouterr().err.count("\n") == 2
