"""Unitree's messages as bytes: places, checksums, and what the maker's own client reads and writes."""

import numpy as np
import pytest

from robot.transports.unitree.layout import Packed
from robot.transports.unitree.messages import (
    LOW_CMD_MESSAGE,
    LOW_STATE_MESSAGE,
    SPORT_STATE_MESSAGE,
    Button,
    Remote,
    dds_message,
    dds_type,
    low_command,
)
from sim.errors import InputError

MESSAGES = (LOW_CMD_MESSAGE, LOW_STATE_MESSAGE, SPORT_STATE_MESSAGE)


def first_motor(command: Packed, **values: float) -> Packed:
    for name, value in values.items():
        whole = command[f"motor_cmd.{name}"]
        whole[0] = value
        command[f"motor_cmd.{name}"] = whole
    return command


def a_servo() -> Packed:
    command = Packed(LOW_CMD_MESSAGE)
    command["head"], command["level_flag"], command["motor_cmd.mode"] = [0xFE, 0xEF], 0xFF, 1
    return command


def a_state() -> Packed:
    state = Packed(LOW_STATE_MESSAGE)
    state["imu_state.quaternion"], state["tick"] = [1, 0, 0, 0], 1000
    return state


@pytest.mark.parametrize(
    "message, checksum",
    [
        (Packed(LOW_CMD_MESSAGE), 0x4B5A4880), (first_motor(Packed(LOW_CMD_MESSAGE), q=0.5, kp=35, kd=1), 0x5F80F9FB),
        (first_motor(Packed(LOW_CMD_MESSAGE), q=0.5, kp=35, kd=1, mode=1), 0x641F2FF0), (low_command(), 0x06E577CD),
        (first_motor(low_command(), q=0.5, dq=0, kp=35, kd=1), 0xEE50AA6F), (a_servo(), 0x57ECF19D),
        (Packed(LOW_STATE_MESSAGE), 0x85F11EA6), (a_state(), 0x88CB86DB),
    ],
)  # fmt: skip
def test_checksums_are_those_that_unitrees_library_computes(message, checksum):
    assert message.checksum() == checksum
    assert not message.whole and message.seal().whole


def test_sizes_and_places_are_the_documented_ones():
    command, state = LOW_CMD_MESSAGE.wire, LOW_STATE_MESSAGE.wire
    assert (command.size, LOW_CMD_MESSAGE.memory.size) == (808, 812)
    assert (state.size, LOW_STATE_MESSAGE.memory.size) == (1176, 1180)
    motors = np.arange(20)
    assert (command.places["motor_cmd.q"] == 24 + 36 * motors).all()
    assert command.places["motor_cmd.mode"][:3].tolist() == [22, 56, 92]
    assert (state.places["motor_state.q"] == 80 + 48 * motors).all()
    assert (state.places["motor_state.lost"] == 112 + 48 * motors).all()
    found = {
        name: int(state.places[name][0]) for name in ("imu_state.quaternion", "foot_force", "tick", "power_v", "crc")
    }
    assert found == {"imu_state.quaternion": 24, "foot_force": 1080, "tick": 1096, "power_v": 1152, "crc": 1172}


@pytest.mark.parametrize("structure", MESSAGES, ids=lambda structure: structure.name.rsplit(".", 1)[1])
def test_every_field_comes_back_and_touches_no_other(structure):
    rng = np.random.default_rng(0)
    message, written = Packed(structure), {}
    for path, kind in structure.wire.kinds.items():
        size = len(structure.wire.places[path])
        written[path] = rng.integers(1, 100, size).astype(kind)
        message[path] = written[path]
    again = Packed(structure, message.bytes()[4:])
    for path, values in written.items():
        np.testing.assert_array_equal(again[path], values, err_msg=path)


def test_a_short_message_is_refused():
    with pytest.raises(InputError):
        Packed(LOW_STATE_MESSAGE, bytes(1000))
    with pytest.raises(ValueError):
        dds_type(LOW_STATE_MESSAGE).deserialize(bytes([0, 0, 0, 0]) + bytes(1176))


def test_the_makers_client_reads_what_we_write_and_we_what_it_writes():
    from unitree_sdk2py.idl.default import unitree_go_msg_dds__LowState_
    from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_
    from unitree_sdk2py.utils.crc import CRC

    ours = first_motor(low_command(), q=0.5, dq=0, kp=35, kd=1).seal()
    theirs = LowCmd_.deserialize(dds_message(ours).serialize())
    assert theirs.motor_cmd[0].kp == 35 and theirs.motor_cmd[19].mode == 1 and CRC().Crc(theirs) == theirs.crc
    assert theirs.serialize() == dds_message(ours).serialize()
    state = unitree_go_msg_dds__LowState_()
    state.motor_state[11].q, state.motor_state[3].lost, state.tick = 1.5, 7, 42
    state.crc = CRC().Crc(state)
    read = dds_type(LOW_STATE_MESSAGE).deserialize(state.serialize()).packed
    assert read.whole and read["motor_state.q"][11] == 1.5 and read["motor_state.lost"][3] == 7 and read["tick"] == 42


def test_the_remote_is_read():
    raw = np.zeros(40, np.uint8)
    assert Remote.of(raw) is None
    raw[2:4] = np.frombuffer(np.array([Button.L2 | Button.B], "<u2").tobytes(), np.uint8)
    for at, value in ((4, 0.25), (8, -0.5), (12, 0.75), (20, 1.0)):
        raw[at : at + 4] = np.frombuffer(np.array([value], "<f4").tobytes(), np.uint8)
    remote = Remote.of(raw)
    assert remote is not None and remote.buttons == Button.L2 | Button.B
    assert remote.left == (0.25, 1.0) and remote.right == (-0.5, 0.75)
    raw[4:8] = np.frombuffer(np.array([np.nan], "<f4").tobytes(), np.uint8)
    assert Remote.of(raw) is None
