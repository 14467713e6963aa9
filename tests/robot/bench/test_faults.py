"""Every fault of `robot.bench.faults` ends safe, and the checks that say so can fail."""

from dataclasses import replace

import numpy as np
import pytest

from policies.skills.library import load_skills
from robot.bench import faults, rig
from robot.bench.faults import BY_SENSOR, CORRUPTED, FAULTS, ONE_JOINT, Fault, stuck_joint, try_bundle, try_fault
from robot.bench.rig import COMMAND, Rig
from robot.loop import safety
from robot.loop.message_filter import Plausible
from robot.loop.plausibility import SpeedAgainstPosition
from robot.loop.refusals import Code
from robot.loop.safety import Limits
from robot.loop.transport import Mode, Output
from sim.robots.description import Drives
from sim.tasks.randomization import SensorNoise

BY_NAME = {fault.name: fault for fault in FAULTS}
ASKED_FOR = {
    "sensor silence": "joints and IMU silent", "stale stamps": "joint stamps frozen", "clock jumps": "5 s ahead",
    "NaN": "NaN in joint angles", "infinities": "infinite joint speed", "swapped": "swapped joint order",
    "missing": "missing joint", "extra": "extra joint", "wrong units": "in degrees", "stuck values": "readings stuck",
    "spikes": "joint spikes", "quaternion not normalised": "quaternion not normalised",
    "command silence": "command silence", "command out of range": "command out of range", "pose lost": "pose lost",
    "transport killed and restarted": "transport killed and restarted", "policy NaN": "policy puts out NaN",
    "policy's wrong shape": "policy puts out a wrong shape", "tick overrun": "steps overrun",
    "joint at its limit": "joint beyond its range", "tilt over limit": "tilt over the limit",
    "upside down": "rolled upside down", "double arm": "double arm", "arm while fallen": "arm while fallen",
    "disk full": "disk full while recording", "corrupted bundle": "bundle with flipped bits",
    "stop while disarmed": "stop while disarmed", "stop while standing up": "stop while standing up",
    "stop while running": "stop while running", "stop in a soft stop": "stop in a soft stop",
    "stop in an emergency": "stop in an emergency", "one stuck encoder": "knee encoder stuck",
    "stall": "loop stands still", "missed deadlines": "every second step",
}  # fmt: skip
"""What must be tried -> words of the fault's name."""


SAMPLE = [
    group[k]
    for group in BY_SENSOR.values()
    for k in sorted(np.random.default_rng(len(FAULTS)).permutation(len(group))[: 4 if len(group) > 12 else 2])
]
"""Faults that the suite tries, some of each sensor; `barkour bench onboard` tries them all."""


@pytest.mark.parametrize("fault", SAMPLE, ids=lambda fault: fault.name)
def test_a_fault_ends_safe(fault):
    found = try_fault(fault)
    assert found["safe"], found["violations"]
    assert found["reached"] == found["expected"] and found["milliseconds"] <= faults.BUDGET


SPEEDS = [fault for fault in FAULTS if {*fault.keys} & {*faults.JOINT_SPEEDS} and " speed" in fault.name]


@pytest.mark.parametrize("fault", SPEEDS, ids=lambda fault: fault.name)
def test_wrong_joint_speeds_are_seen_by_the_senders_own_count_too(fault, monkeypatch):
    """As by stamps, which the rig's messages have alone."""
    see = SpeedAgainstPosition.see
    monkeypatch.setattr(
        SpeedAgainstPosition, "see", lambda self, now, stamp, q, v, count: see(self, now, stamp, q, v, stamp)
    )
    found = try_fault(fault)
    assert found["safe"], found["violations"]


@pytest.mark.parametrize(
    ("index", "fields"), [(k, ONE_JOINT if k % 2 else ONE_JOINT[:1]) for k in (0, 3, 4, 7, 8, 11)], ids=str
)
def test_any_joints_encoder_may_get_stuck_at_any_time(index, fields):
    fault = replace(BY_NAME["knee encoder stuck"], inject=stuck_joint(index, *fields, after=0.02 * (index % 8)))
    found = try_fault(fault)
    assert found["safe"] and found["reached"] == "emergency", found["violations"]


@pytest.mark.parametrize("digit", [0.0, 0.0015, 0.003])
def test_encoders_without_noise_and_with_few_digits_are_no_fault(digit):
    """Standing up, standing, running, turning, stopping; 12 and 11 bits a turn."""
    rig = Rig(command=(0.0, 0.0, 0.0))
    rig.hardware.worlds.noise = SensorNoise(0.0, 0.0, 0.0, 0.0, 0.0)
    if digit:
        rig.transport.tampers["joints"] = lambda m: m | {"position": np.round(m["position"] / digit) * digit}
    rig.bring_to("running")
    for command in ((0.0, 0.0, 0.0), COMMAND, (0.8, 0.0, 1.2)):
        rig.transport.command = command
        rig.run(1.4)
        assert rig.steps[-1].state == "running"
    rig.ask("stop")
    rig.run(1.5)
    assert rig.steps[-1].state == "disarmed" and Code.JOINT_STUCK not in rig.controller.refusals.counts


@pytest.mark.parametrize("name", CORRUPTED)
def test_a_corrupted_bundle_is_refused_before_anything_is_armed(name):
    found = try_bundle(name)
    assert found["safe"] and found["reached"] == faults.REFUSED and "bundle.onnx" in found["reason"]


def test_the_table_has_every_fault_that_must_be_tried_once():
    names = faults.names()
    assert len(names) == len(set(names)) >= 160
    assert all(faults.sensor_of(name) for name in names) and len(faults.UNSEEN) <= 10
    for what, words in ASKED_FOR.items():
        assert any(words in name for name in names), what


def test_results_are_json_ready_and_say_why(monkeypatch, capsys):
    monkeypatch.setattr(faults, "FAULTS", (BY_NAME["command silence"],))
    monkeypatch.setattr(faults, "CORRUPTED", {})
    assert faults.main(["--json"]) == 0
    assert '"safe": true' in capsys.readouterr().out
    assert faults.main([]) == 0
    assert "0.08" in capsys.readouterr().out


# --- the checks can fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "name"),
    [
        ("sensors_fresh", "joint readings silent"),
        ("upright", "tilt over the limit"),
        ("clear_of_the_ground", "height lost"),
        ("joint_speed", "joint overspeed"),
        ("torque", "joint torque too high"),
        ("encoders_alive", "knee encoder stuck, its speed reads 0"),
        ("encoders_alive", "abduction encoder stuck, its speed reads 0"),
        ("punctual", "steps overrun"),
        ("keeping_up", "every second step overruns"),
        ("command_fresh", "command silence"),
        ("pose_fresh", "pose lost"),
    ],
)
def test_without_a_check_its_fault_is_not_safe(monkeypatch, check, name):
    for chain in ("ALWAYS", "RUNNING"):
        kept = tuple(c for c in getattr(safety, chain) if c.__name__ != check)
        monkeypatch.setattr(safety, chain, kept)
    assert not try_fault(BY_NAME[name])["safe"]


@pytest.mark.parametrize(
    ("loose", "name"),
    [
        ({"joint_margin": 100.0, "jump": 100.0, "joint_differs": 1e9}, "joint angles in degrees"),
        ({"jump": 100.0, "joint_differs": 100.0}, "joint offset"),
        ({"joint_differs": 100.0}, "hip speed dead"),
        ({"gyro_differs": 100.0}, "gyro reversed"),
        ({"frozen": 100.0}, "IMU stuck"),
        ({"delay": 100.0}, "sender's clock 5 s ahead"),
        ({"quaternion": 100.0}, "quaternion not normalised"),
        ({"pose_step": 100.0}, "pose jump"),
    ],
)
def test_without_a_plausibility_check_its_fault_is_not_safe(loose, name):
    assert not try_fault(BY_NAME[name], plausible=replace(Plausible(), **loose))["safe"]


@pytest.mark.parametrize(
    ("loose", "name"),
    [
        ({"drive_differs": 5.0}, "abduction drive dead"),
        ({"pose_differs": 100.0}, "place stuck, not the attitude"),
        ({"heading_differs": 3.2}, "heading turned by 90 degrees"),
        ({"pose_hops": 10}, "pose hops to and fro by 0.4 m"),
        ({"feet_height": 10.0}, "pose 0.45 m too high"),
        ({"readings_rare": 5}, "13 of 14 joint messages lost"),
        ({"command_jumps": 10}, "two navigators in turn"),
        ({"grid_differs": 10.0}, "height grid with a pit of 0.4 m all round"),
    ],
)
def test_without_a_monitor_of_motion_its_fault_is_not_safe(loose, name):
    assert not try_fault(BY_NAME[name], limits=Limits(**loose))["safe"]


def test_faults_are_summed_up_by_sensor():
    found = [
        {"sensor": "pose", "safe": safe, "milliseconds": 10.0 * k, "reached": ("running", "soft stop")[k % 2]}
        for k, safe in enumerate((True, False, True))
    ]
    assert faults.summary([*found, {"name": "of another version", "safe": True}]) == [
        {"sensor": "pose", "tried": 3, "safe": 2, "slowest_ms": 20.0, "states": {"running": 2, "soft stop": 1}}
    ]


def test_without_the_finiteness_check_of_targets_a_nan_is_found_out(monkeypatch):
    monkeypatch.setattr(safety, "unusable", lambda targets, joints: None)
    found = try_fault(BY_NAME["policy puts out NaN"])
    assert any("finite" in violation for violation in found["violations"])


def test_without_bounds_of_targets_range_and_step_are_found_out(monkeypatch):
    monkeypatch.setattr(safety, "bounded_targets", lambda targets, *_: (np.asarray(targets, np.float32), None))
    found = [try_fault(BY_NAME[f"policy asks {what}"]) for what in ("beyond a joint's range", "for too large a step")]
    assert any("outside its joint's range" in v for v in found[0]["violations"])
    assert any("a target changed by" in v for v in found[1]["violations"])


@pytest.mark.parametrize("name", ["loop stands still for 0.12 s", "policy blocks for 2 s"])
def test_a_loop_that_goes_on_after_its_drives_let_go_is_found_out(name):
    assert not try_fault(BY_NAME[name], limits=Limits(away=5.0, missed=50))["safe"]


def test_a_slow_reaction_is_found_out():
    found = try_fault(BY_NAME["joint readings silent"], limits=Limits(sensor_timeout=0.15))
    assert not found["safe"] and any("ms, limit 100" in v for v in found["violations"])


@pytest.mark.parametrize(
    ("when", "mode", "words"),
    [
        ("disarmed", Mode.POSITION, "something was sent"),
        ("emergency", Mode.POSITION, "POSITION was sent"),
        ("running", None, "nothing was sent to a robot that is held"),
    ],
)
def test_what_must_not_be_sent_is_found_out(when, mode, words):
    def inject(rig: Rig) -> None:
        rig.wrong()
        write = rig.transport.write
        stray = Output(mode or Mode.DAMP, np.array(rig.robot.default_pose), 0)
        rig.controller._send = lambda *_: write(stray) if mode is not None else None

    fault = Fault("stray output", when, inject, when, "", ())
    assert any(words in v for v in try_fault(fault)["violations"])


def test_a_dry_run_that_sends_is_found_out():
    fault = Fault("stray", "running", lambda rig: (rig.wrong(), setattr(rig.controller, "dry_run", False)), "running",
                  "", (), rig={"dry_run": True})  # fmt: skip
    assert any("dry run" in v for v in try_fault(fault)["violations"])


def test_a_silent_controller_is_found_out():
    for wrong in ({"says": Code.TILT}, {"says": ("joints jump", "pose stale and old")}, {"value": 7.0}):
        found = try_fault(replace(BY_NAME["command silence"], **wrong))
        assert len(found["violations"]) == 1 and found["code"] == Code.COMMAND_STALE


def test_a_loop_that_dies_with_drives_that_hold_is_found_out(monkeypatch):
    patient = load_skills("generalist")
    patient.bundles[0].robot = replace(patient.robot, drives=Drives(watchdog=10.0))
    monkeypatch.setattr(rig, "skills_of", lambda policy="generalist": patient)
    found = try_fault(BY_NAME["loop dies"])
    assert found["reached"] == "loop dead" and not found["safe"]


def test_clocks_that_nobody_believes_stop_the_robot():
    assert not try_fault(BY_NAME["sender's clock 5 s back"], plausible=Plausible(agree=1000))["safe"]
