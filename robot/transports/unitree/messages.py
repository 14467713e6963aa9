"""The messages of Unitree's low-level interface and of its services (unitree_sdk2, `idl/go2`): fields, types, topics.

Importing this needs no DDS; the types for it are made by `dds_type`.
"""

import functools
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from importlib import import_module
from typing import Any

import numpy as np

from robot.transports.unitree.layout import ENCAPSULATION, Array, Field, Packed, Structure

MOTORS = 20
"""Motors in a message; those beyond a robot's joints are left alone."""
LOW_COMMAND, LOW_STATE, SPORT_STATE = "rt/lowcmd", "rt/lowstate", "rt/sportmodestate"
SERVO, OFF = 0x01, 0x00
"""A motor's mode."""
NO_POSITION, NO_VELOCITY = 2.146e9, 16000.0
"""rad, rad/s: what is asked for where there is no position or no velocity to reach."""
POWER_OFF = 0xA5
"""In `bms_cmd.off`: the battery switches itself off. Never sent."""

MOTOR_COMMAND = Structure(
    "unitree_go.msg.dds_.MotorCmd_",
    (
        Field("mode", "u1"), Field("q", "f4"), Field("dq", "f4"), Field("tau", "f4"), Field("kp", "f4"),
        Field("kd", "f4"), Field("reserve", "u4", 3),
    ),
)  # fmt: skip
BATTERY_COMMAND = Structure("unitree_go.msg.dds_.BmsCmd_", (Field("off", "u1"), Field("reserve", "u1", 3)))
HEADER = (
    Field("head", "u1", 2), Field("level_flag", "u1"), Field("frame_reserve", "u1"), Field("sn", "u4", 2),
    Field("version", "u4", 2), Field("bandwidth", "u2"),
)  # fmt: skip
LOW_CMD_MESSAGE = Structure(
    "unitree_go.msg.dds_.LowCmd_",
    (
        *HEADER, Field("motor_cmd", MOTOR_COMMAND, MOTORS), Field("bms_cmd", BATTERY_COMMAND),
        Field("wireless_remote", "u1", 40), Field("led", "u1", 12), Field("fan", "u1", 2), Field("gpio", "u1"),
        Field("reserve", "u4"), Field("crc", "u4"),
    ),
)  # fmt: skip
IMU = Structure(
    "unitree_go.msg.dds_.IMUState_",
    (
        Field("quaternion", "f4", 4), Field("gyroscope", "f4", 3), Field("accelerometer", "f4", 3),
        Field("rpy", "f4", 3), Field("temperature", "u1"),
    ),
)  # fmt: skip
MOTOR_STATE = Structure(
    "unitree_go.msg.dds_.MotorState_",
    (
        Field("mode", "u1"), Field("q", "f4"), Field("dq", "f4"), Field("ddq", "f4"), Field("tau_est", "f4"),
        Field("q_raw", "f4"), Field("dq_raw", "f4"), Field("ddq_raw", "f4"), Field("temperature", "u1"),
        Field("lost", "u4"), Field("reserve", "u4", 2),
    ),
)  # fmt: skip
BATTERY_STATE = Structure(
    "unitree_go.msg.dds_.BmsState_",
    (
        Field("version_high", "u1"), Field("version_low", "u1"), Field("status", "u1"), Field("soc", "u1"),
        Field("current", "i4"), Field("cycle", "u2"), Field("bq_ntc", "u1", 2), Field("mcu_ntc", "u1", 2),
        Field("cell_vol", "u2", 15),
    ),
)  # fmt: skip
LOW_STATE_MESSAGE = Structure(
    "unitree_go.msg.dds_.LowState_",
    (
        *HEADER, Field("imu_state", IMU), Field("motor_state", MOTOR_STATE, MOTORS), Field("bms_state", BATTERY_STATE),
        Field("foot_force", "i2", 4), Field("foot_force_est", "i2", 4), Field("tick", "u4"),
        Field("wireless_remote", "u1", 40), Field("bit_flag", "u1"), Field("adc_reel", "f4"),
        Field("temperature_ntc1", "u1"), Field("temperature_ntc2", "u1"), Field("power_v", "f4"),
        Field("power_a", "f4"), Field("fan_frequency", "u2", 4), Field("reserve", "u4"), Field("crc", "u4"),
    ),
)  # fmt: skip
SPORT_STATE_MESSAGE = Structure(
    "unitree_go.msg.dds_.SportModeState_",
    (
        Field("stamp", Structure("unitree_go.msg.dds_.TimeSpec_", (Field("sec", "i4"), Field("nanosec", "u4")))),
        Field("error_code", "u4"), Field("imu_state", IMU), Field("mode", "u1"), Field("progress", "f4"),
        Field("gait_type", "u1"), Field("foot_raise_height", "f4"), Field("position", "f4", 3),
        Field("body_height", "f4"), Field("velocity", "f4", 3), Field("yaw_speed", "f4"),
        Field("range_obstacle", "f4", 4), Field("foot_force", "i2", 4), Field("foot_position_body", "f4", 12),
        Field("foot_speed_body", "f4", 12),
        Field(
            "path_point",
            Structure(
                "unitree_go.msg.dds_.PathPoint_",
                tuple(Field(name, "f4") for name in ("t_from_start", "x", "y", "yaw", "vx", "vy", "vyaw")),
            ),
            10,
        ),
    ),
)  # fmt: skip


def low_command() -> Packed:
    """A low-level command that asks every motor for nothing: no position, no velocity, no gain."""
    command = Packed(LOW_CMD_MESSAGE)
    command["head"] = [0xFE, 0xEF]
    command["level_flag"] = 0xFF
    command["motor_cmd.mode"] = SERVO
    command["motor_cmd.q"] = NO_POSITION
    command["motor_cmd.dq"] = NO_VELOCITY
    return command


class Button(IntFlag):
    """The buttons of the remote, bits 0 to 15."""

    R1, L1, START, SELECT, R2, L2, F1, F2, A, B, X, Y, UP, RIGHT, DOWN, LEFT = (1 << bit for bit in range(16))


@dataclass(frozen=True)
class Remote:
    """What the remote says, `wireless_remote` of a state."""

    buttons: Button
    left: tuple[float, float]
    """The left stick: to the right and ahead, -1 to 1."""
    right: tuple[float, float]

    @classmethod
    def of(cls, data: Array) -> "Remote | None":
        """From the 40 bytes; None where no remote was heard yet, or its sticks cannot be."""
        raw = data.astype(np.uint8).tobytes()
        lx, rx, ry, ly = (float(np.frombuffer(raw, "<f4", 1, at)[0]) for at in (4, 8, 12, 20))
        sticks = np.array([lx, ly, rx, ry])
        if not any(raw) or not np.isfinite(sticks).all() or np.abs(sticks).max() > 1.5:
            return None
        return cls(Button(int.from_bytes(raw[2:4], "little")), (lx, ly), (rx, ry))


class Switcher(IntEnum):
    """Calls of the service `motion_switcher`, which says whose commands the motors obey."""

    CHECK_MODE = 1001
    SELECT_MODE = 1002
    RELEASE_MODE = 1003


class Sport(IntEnum):
    """Calls of the service `sport`, the robot's own walking, that matter before it is left."""

    DAMP = 1001
    STAND_UP = 1004
    STAND_DOWN = 1005
    RECOVERY_STAND = 1006


OK, UNKNOWN_API = 0, 3203
"""Codes of an answer."""


@functools.cache
def dds_type(structure: Structure) -> Any:
    """The DDS type of a message, which packs and unpacks it as `Packed` does: many times faster than the generic way.

    Instances are made by `dds_message`, and have what came in as `packed`.
    """
    idl, annotations, types = (import_module(f"cyclonedds.idl{name}") for name in ("", ".annotations", ".types"))
    numbers = {
        "u1": types.uint8, "i2": types.int16, "u2": types.uint16, "i4": types.int32, "u4": types.uint32,
        "f4": types.float32,
    }  # fmt: skip

    def kind(entry: Field) -> Any:
        one = _plain(entry.kind) if isinstance(entry.kind, Structure) else numbers[entry.kind]
        return one if entry.count is None else types.array[one, entry.count]

    @functools.cache
    def _plain(part: Structure) -> Any:
        name = part.name.rsplit(".", 1)[1]
        made = idl.make_idl_struct(name, part.name, {f.name: kind(f) for f in part.fields})
        return annotations.final(annotations.autoid("sequential")(made))

    def serialize(self: Any, *_: Any, **__: Any) -> bytes:
        return self.packed.bytes()

    def deserialize(cls: Any, data: bytes, *_: Any, **__: Any) -> Any:
        if bytes(data[:2]) != ENCAPSULATION[:2]:
            raise ValueError(f"a message {structure.name} that is not XCDR1, little endian")
        made = cls.__new__(cls)
        made.packed = Packed(structure, bytes(data[4:]))
        return made

    made = _plain(structure)
    made.serialize, made.deserialize = serialize, classmethod(deserialize)
    return made


def dds_message(packed: Packed) -> Any:
    """A message to write."""
    kind = dds_type(packed.structure)
    made = kind.__new__(kind)
    made.packed = packed
    return made
