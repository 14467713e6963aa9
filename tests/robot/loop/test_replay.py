"""A recorded run gives the same outputs again, and a recording in which something differs is told apart."""

import json
from pathlib import Path

import numpy as np
import pytest

import barkour
from robot.loop import parameters, recording, replay
from robot.loop.recording import read, write
from robot.loop.transport import Mode, State
from robot.options import OnboardOptions, ReplayOptions
from robot.transports.simulation import SimulatedOnboard, onboard_in_simulation
from sim.errors import InputError

BEGINNING = 450
"""Control steps: the robot runs in more than half of them."""


@pytest.fixture(scope="module")
def run(course_runs, tmp_path_factory) -> tuple[dict, Path]:
    """A course run's result, and the first steps of its recording."""
    short = tmp_path_factory.mktemp("replay") / "short.mcap"
    return course_runs.results[0], rewritten(course_runs.recording, short, lambda header, steps: None)


def rewritten(file: Path, to: Path, change) -> Path:
    """The first steps of a recording again, after `change(header, steps)`."""
    found = read(file)
    header, steps = dict(found.header), found.steps[:BEGINNING].copy()
    change(header, steps)
    write(to, header, steps, {})
    return to


@pytest.mark.slow
def test_a_run_over_the_course_is_reproduced_to_the_last_bit(course_runs):
    again, ended = replay.replay(ReplayOptions(course_runs.recording)), course_runs.results[0]["controller"]["state"]
    assert again["equal"] and again["largest_target_difference"] == 0.0 and again["lost_bytes"] == 0
    assert again["steps"] == course_runs.results[0]["loop"]["ticks"]
    assert again["states"][:3] == ["disarmed", "standing_up", "running"] and again["states"][-1] == ended
    assert course_runs.recording.stat().st_size < 1500 * again["steps"]


def test_another_joint_target_is_found_and_named(run, tmp_path):
    def change(header, steps):
        steps["targets"][400, 5] += 0.01

    found = replay.replay(ReplayOptions(rewritten(run[1], tmp_path / "changed.mcap", change)))
    assert not found["equal"] and found["differing_steps"] == 1
    assert found["first_difference"].startswith("step 400: a joint target differs by 0.01")


def test_another_input_changes_what_comes_out(run, tmp_path):
    def change(header, steps):
        steps["angular_velocity"][300, 0] += 1.0

    found = replay.replay(ReplayOptions(rewritten(run[1], tmp_path / "changed.mcap", change)))
    assert not found["equal"] and found["differing_steps"] > 10
    assert found["first_difference"].startswith("step 300:")


def test_another_state_is_found(run, tmp_path):
    def change(header, steps):
        k = int(np.flatnonzero(steps["state"] == State.RUNNING)[0])
        steps["mode"][k] = Mode.DAMP

    assert (
        "the output was DAMP, now POSITION"
        in replay.replay(ReplayOptions(rewritten(run[1], tmp_path / "changed.mcap", change)))["first_difference"]
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("schema", 7, "has the version 7"),
        ("bundles", {"generalist.onnx": "0" * 64}, "other bundles"),
        ("robot", "spot", "spot"),
        ("policy", "nobody", "unknown policy"),
        ("policy", "../../etc/passwd", "unknown policy|no policy file|not a readable"),
        ("course", "a: [", "not valid YAML"),
        ("course", 5, "cannot be used"),
        ("limits", {"tilt": 99.0}, "cannot be used"),
        ("limits", None, "cannot be used"),
    ],
)
def test_a_header_that_does_not_fit_is_one_sentence(run, tmp_path, key, value, words):
    def change(header, steps):
        header[key] = value

    with pytest.raises(InputError, match=words) as found:
        replay.replay(ReplayOptions(rewritten(run[1], tmp_path / "changed.mcap", change)))
    assert "\n" not in str(found.value)


def test_another_policy_can_be_compared_with(run):
    found = replay.replay(ReplayOptions(run[1], "specialists"))
    assert not found["equal"] and found["largest_target_difference"] > 0.01


def test_the_front_door_says_whether_a_recording_was_reproduced(run, tmp_path, capsys):
    for spelling in (["--replay", str(run[1])], ["replay", str(run[1])]):
        assert barkour.main(["onboard", *spelling, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["equal"]

    def change(header, steps):
        steps["targets"][400, 5] += 0.01

    changed = rewritten(run[1], tmp_path / "changed.mcap", change)
    assert barkour.main(["onboard", "--replay", str(changed), "--json"]) == 1
    assert "not reproduced: step 400" in capsys.readouterr().err
    assert barkour.main(["onboard", "--replay", str(tmp_path / "none.mcap")]) == 2
    assert barkour.main(["onboard", "--record", str(run[1])]) == 2
    assert read(run[1]).lost == 0


def test_a_parameter_files_word_on_dry_runs_holds_in_simulation_too(tmp_path):
    file = tmp_path / "p.yaml"
    for said, dry in (("dry_run: true", True), ("dry_run: false", False), ("tilt: 1.0", False)):
        file.write_text(f"onboard: {{ros__parameters: {{{said}}}}}\n")
        assert parameters.load(SimulatedOnboard, file, "onboard").dry_run is dry
    file.write_text("onboard: {ros__parameters: {dry_run: true}}\n")
    result = onboard_in_simulation(OnboardOptions(parameters=file), log=lambda text: None)
    assert result["controller"]["dry_run"] and "dry run" in result["end"]


def test_a_dry_run_sends_nothing(tmp_path):
    result = onboard_in_simulation(OnboardOptions(dry_run=True, record=tmp_path / "dry.mcap"), log=lambda text: None)
    assert result["end"] == "dry run: nothing was sent" and result["latency_ms"] is None
    found = recording.read(tmp_path / "dry.mcap")
    assert State.RUNNING in found.steps["state"]
    assert result["path_m"] < 0.05


def test_a_recorded_course_run_comes_out_as_it_did_when_it_was_recorded():
    """The first ten seconds of the official course with the specialists, seed 3; made by `barkour onboard --bundle
    specialists --seed 3 --record FILE`. It fails where observation, policies, safety chain or state machine change; the
    tolerance is what networks round differently on other processors."""
    found = replay.replay(ReplayOptions(Path(__file__).with_name("recordings") / "specialists_seed_3.mcap"))
    assert found["equal"], found["first_difference"]
    assert found["steps"] == 500 and found["states"] == ["disarmed", "standing_up", "running"]
