"""Faults of the bench over Unitree's messages: as safe as without them, and a wire whose checks can fail."""

from dataclasses import replace

import numpy as np
import pytest

from robot.bench import faults
from robot.bench.faults import BY_SENSOR, FAULTS, Fault, try_fault
from robot.bench.rig import Rig
from robot.bench.unitree_wire import Unsayable
from robot.loop.transport import NS, Mode, Output

BY_NAME = {fault.name: fault for fault in FAULTS}
UNSAYABLE = {
    "IMU silent", "13 of 14 IMU messages lost", "IMU stamps frozen", "swapped joint order", "missing joint",
    "extra joint", "duplicated joint", "joint messages of nonsense",
}  # fmt: skip
SAMPLE = [
    next(group[k] for k in np.random.default_rng(7).permutation(len(group)) if group[k].name not in UNSAYABLE)
    for group in BY_SENSOR.values()
]


@pytest.mark.parametrize("fault", SAMPLE, ids=lambda fault: fault.name)
def test_a_fault_over_these_messages_ends_safe(fault):
    """One of each sensor; `python -m robot.bench.faults --unitree` tries them all."""
    found = try_fault(fault, unitree=True)
    assert found["safe"], found["violations"]
    assert found["reached"] == fault.expected


@pytest.mark.parametrize("name", ["IMU silent", "extra joint", "joint messages of nonsense"])
def test_what_the_messages_have_no_place_for_is_not_tried(name):
    with pytest.raises(Unsayable):
        try_fault(BY_NAME[name], unitree=True)


def _running() -> Rig:
    rig = Rig(unitree=True)
    rig.bring_to("running")
    return rig


def test_the_robot_walks_and_lies_down_by_its_messages():
    rig = _running()
    start = rig.hardware.pose()[0]
    rig.run(1.0)
    assert rig.hardware.pose()[0][0] - start[0] > 0.5 and not rig.violations()
    lying = Rig(unitree=True, lying=True)
    assert lying.hardware.damping and lying.hardware.pose()[0][2] < 0.7 * lying.robot.standing_height


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda targets: targets + np.float32(0.01), "other angles"),
        (None, "nobody asks for"),
    ],
    ids=["other angles", "nobody asks"],
)
def test_commands_that_the_loop_did_not_ask_for_are_seen(change, rule):
    rig = _running()
    transport = rig.transport.transport  # pyright: ignore[reportAttributeAccessIssue]
    write = transport.write
    if change is not None:
        transport.write = lambda output: write(replace(output, targets=change(output.targets)))
    else:  # the sender goes on with the last targets when the loop damps
        transport.write = lambda output: write(output) if output.mode == Mode.POSITION else None
        rig.ask("disarm")
    rig.run(0.1)
    assert any(rule in sentence for sentence in rig.violations())


def test_targets_that_are_held_for_too_long_are_seen():
    rig = _running()
    wire = rig.transport
    wire.write = lambda output: None  # type: ignore[method-assign]
    last: Output = wire.written[-1][1]
    rig.clock.pass_by(2 * rig.robot.drives.watchdog)
    wire.transport._asked = (Mode.POSITION, last.targets, rig.clock.now(), 0)  # pyright: ignore
    wire.transport.send_once()  # pyright: ignore
    assert rig.clock.now() - wire.written[-1][0] > rig.robot.drives.watchdog * NS
    assert any("long ago" in sentence for sentence in rig.violations())


def test_a_reading_is_altered_before_its_checksum():
    """What comes to the loop is whole, and wrong as the fault has it."""
    rig = _running()
    fault: Fault = BY_NAME["joint beyond its range"]
    fault.inject(rig)
    rig.run(0.1)
    counts = rig.messages.refusals.counts
    assert any("range" in key for key in counts) and not any("checksum" in key for key in counts)


def test_the_table_names_what_was_left_out(monkeypatch, capsys):
    monkeypatch.setattr(faults, "FAULTS", (BY_NAME["command silence"], BY_NAME["extra joint"]))
    monkeypatch.setattr(faults, "CORRUPTED", {})
    assert faults.main(["--unitree"]) == 0
    said = capsys.readouterr().out
    assert "silence" in said and "no place" in said and "extra joint" in said
