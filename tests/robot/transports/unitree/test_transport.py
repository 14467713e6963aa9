"""The control loop's side of Unitree's messages, against a robot that says what a test wants, over loopback."""

import os
import time
from dataclasses import replace

import numpy as np
import pytest

from robot.loop.clock import SteadyClock
from robot.loop.message_filter import MessageFilter
from robot.loop.recording import SECOND_DAMPS
from robot.loop.refusals import Code
from robot.loop.transport import NS, Mode, Output
from robot.transports.unitree import transport as module
from robot.transports.unitree.bus import Bus, Inbox, Outbox, Server
from robot.transports.unitree.layout import Packed
from robot.transports.unitree.messages import (
    LOW_CMD_MESSAGE,
    LOW_COMMAND,
    LOW_STATE,
    LOW_STATE_MESSAGE,
    NO_POSITION,
    Button,
    low_command,
)
from robot.transports.unitree.transport import HOT, UnitreeTransport
from sim.errors import InputError
from sim.robots.description import robot_by_name

ROBOT = robot_by_name("unitree_go2")
PATIENT = replace(ROBOT, drives=replace(ROBOT.drives, watchdog=5.0))
"""Does not notice how busy the computer is."""
DOMAIN = 100 + os.getpid() % 100


class Robot:
    """Sends states when told to, keeps the commands, and answers for its services."""

    def __init__(self, mode: str = "", stubborn: bool = False) -> None:
        self.bus = Bus(DOMAIN, "lo")
        self.mode, self.stubborn, self.tick = mode, stubborn, 0
        self.commands: list[Packed] = []
        self.state = Packed(LOW_STATE_MESSAGE)
        self.state["imu_state.quaternion"] = [1, 0, 0, 0]
        self.state["motor_state.mode"] = 1
        self.state["motor_state.q"] = np.pad(ROBOT.default_pose, (0, 8))
        self.out = Outbox(self.bus, LOW_STATE, LOW_STATE_MESSAGE)
        self.inbox = Inbox(
            self.bus, LOW_COMMAND, LOW_CMD_MESSAGE, lambda received: self.commands.append(received.message)
        )
        self.inbox.start()
        self.servers = [
            Server(self.bus, "motion_switcher", {1001: lambda asked: (0, {"name": self.mode}), 1003: self.let_go}),
            Server(self.bus, "sport", {1005: lambda asked: (0, {})}),
        ]

    def let_go(self, asked):
        self.mode = self.mode if self.stubborn else ""
        return 0, {}

    def say(self, seal: bool = True, tick: bool = True, **values) -> None:
        for name, value in values.items():
            self.state[name.replace("__", ".")] = value
        self.tick += tick
        self.state["tick"] = self.tick
        self.out.send(self.state.seal() if seal else self.state)

    def until(self, holds, seconds: float = 20.0, **said) -> bool:
        """Sends states until something holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.say(**said)
            if holds():
                return True
            time.sleep(0.006)
        return False

    def close(self) -> None:
        self.inbox.close()
        for server in self.servers:
            server.close()
        self.bus.close()


@pytest.fixture
def there():
    made = Robot()
    yield made
    made.close()


def connected(there: Robot, robot=PATIENT, dry_run=False, started=True) -> UnitreeTransport:
    clock = SteadyClock()
    transport = UnitreeTransport(Bus(DOMAIN, "lo"), robot, MessageFilter(robot, clock.now), dry_run=dry_run)
    for inbox in transport.inboxes:
        inbox.start()
    assert there.until(lambda: transport.states > 0)
    if started:
        transport.start(switcher=False)
    return transport


def asked(transport: UnitreeTransport) -> set[str]:
    return {request.kind for request in transport.messages.requests}


def counts(transport: UnitreeTransport):
    return transport.messages.refusals.counts


def test_states_come_in_and_targets_go_out_with_the_robots_gains(there):
    transport = connected(there)
    seen = transport.messages.snapshot()
    np.testing.assert_allclose(seen.position, ROBOT.default_pose, atol=1e-6)
    time.sleep(0.1)
    assert not there.commands  # nothing before somebody asks
    transport.write(Output(Mode.POSITION, ROBOT.default_pose + 0.1, 0))
    assert there.until(lambda: len(there.commands) > 5)
    command = there.commands[-1]
    assert command.whole and (command["motor_cmd.mode"] == 1).all() and command["bms_cmd.off"] == 0
    np.testing.assert_allclose(command["motor_cmd.q"][:12], ROBOT.default_pose + 0.1, atol=1e-6)
    np.testing.assert_allclose(command["motor_cmd.kp"][:12], ROBOT.kp, rtol=1e-6)
    np.testing.assert_allclose(command["motor_cmd.kd"][:12], ROBOT.kd, rtol=1e-6)
    assert not command["motor_cmd.kp"][12:].any() and not command["motor_cmd.tau"].any()
    transport.close()
    assert there.until(lambda: not there.commands[-1]["motor_cmd.kp"].any())
    last = there.commands[-1]
    assert (last["motor_cmd.kd"][:12] > 0).all() and (last["motor_cmd.q"] == np.float32(NO_POSITION)).all()


def _asks(command, targets: np.ndarray) -> bool:
    return bool((command["motor_cmd.q"][:12] == targets).all())


def test_new_targets_do_not_wait_for_the_next_command_that_is_due(there, monkeypatch):
    monkeypatch.setattr(module, "COMMAND_PERIOD", 3600 * NS)
    transport = connected(there)
    for offset in (0.1, 0.2):
        targets = np.asarray(ROBOT.default_pose + offset, np.float32)
        transport.write(Output(Mode.POSITION, targets, 0))
        assert there.until(lambda here=targets: bool(there.commands) and _asks(there.commands[-1], here))
    assert len(there.commands) <= 3  # one that was due when it began
    monkeypatch.setattr(module, "COMMAND_PERIOD", NS // 500)
    transport.close()


def test_a_loop_that_falls_silent_does_not_leave_its_targets_in_force(there):
    transport = connected(there, replace(ROBOT, drives=replace(ROBOT.drives, watchdog=0.3)))
    transport.write(Output(Mode.POSITION, ROBOT.default_pose, 0))
    assert there.until(lambda: bool(there.commands) and not there.commands[-1]["motor_cmd.kp"].any())
    assert counts(transport)[Code.AWAY] == 1
    transport.close()


def test_a_dry_run_sends_nothing(there):
    transport = connected(there, dry_run=True)
    transport.write(Output(Mode.POSITION, ROBOT.default_pose, 0))
    assert not there.until(lambda: bool(there.commands), seconds=0.3)
    transport.close()
    assert not there.commands


def test_states_with_a_wrong_checksum_or_an_old_tick_are_not_believed(there):
    """By what they say: sound states from before may still be on their way when the others begin."""
    transport = connected(there)

    def refused(code: Code) -> int:
        return counts(transport)[f"joints {code}"]

    def bent(by: float):
        return np.pad(ROBOT.default_pose + by, (0, 8))

    there.state["crc"] = 1
    assert there.until(lambda: refused(Code.CHECKSUM) > 3, seal=False, motor_state__q=bent(0.1))
    np.testing.assert_allclose(transport.messages.snapshot().position, ROBOT.default_pose, atol=1e-6)
    first = {"tick": False, "motor_state__q": bent(0.0)}  # the first of them is new
    assert there.until(lambda: refused(Code.STAMP_FROZEN) > 0, **first)
    before = refused(Code.STAMP_FROZEN)
    assert there.until(lambda: refused(Code.STAMP_FROZEN) > before + 20, tick=False, motor_state__q=bent(0.2))
    np.testing.assert_allclose(transport.messages.snapshot().position, ROBOT.default_pose, atol=1e-6)
    transport.close()


def test_a_robot_whose_motors_went_off_is_not_believed_any_more(there):
    transport = connected(there)
    transport.write(Output(Mode.POSITION, ROBOT.default_pose, 0))
    assert there.until(lambda: bool(there.commands))
    modes = np.ones(20)
    modes[4] = 0
    assert there.until(lambda: counts(transport)[f"joints {Code.MOTOR}"] > 3, motor_state__mode=modes)
    believed = transport.states
    there.until(lambda: False, seconds=0.1)
    assert transport.states == believed
    transport.close()


def test_a_hot_motor_lets_the_robot_down_once(there):
    transport = connected(there)
    assert there.until(lambda: "stop" in asked(transport), motor_state__temperature=HOT + 1)
    there.until(lambda: False, seconds=0.1)
    assert [request.kind for request in transport.messages.requests] == ["stop"]
    transport.close()


@pytest.mark.parametrize(
    "buttons, kind", [(Button.SELECT, "stop"), (Button.L2 | Button.B, "disarm"), (Button.L1 | Button.START, "arm")]
)
def test_the_remote_asks_once_a_press(there, buttons, kind):
    transport = connected(there, started=False)
    raw = np.zeros(40, np.uint8)
    raw[0], raw[2:4] = 0x55, np.frombuffer(int(buttons).to_bytes(2, "little"), np.uint8)
    assert there.until(lambda: kind in asked(transport), wireless_remote=raw)
    there.until(lambda: False, seconds=0.1)
    assert [request.kind for request in transport.messages.requests] == [kind]
    transport.close()


def test_another_programs_commands_are_noticed(there):
    transport = connected(there)
    transport.write(Output(Mode.POSITION, ROBOT.default_pose, 0))
    assert there.until(lambda: transport.sent > 100)
    assert SECOND_DAMPS not in asked(transport)  # its own are not another's
    foreign = Outbox(Bus(DOMAIN, "lo"), LOW_COMMAND, LOW_CMD_MESSAGE)

    def noticed() -> bool:
        foreign.send(low_command().seal())
        return SECOND_DAMPS in asked(transport)

    assert there.until(noticed)
    transport.close()


def test_the_robots_own_mode_is_released_before_anything_is_sent(there):
    there.mode = "normal"
    transport = connected(there, started=False)
    transport.release()
    assert there.mode == "" and there.servers[1].calls == [1005] and not there.commands
    transport.start()
    transport.write(Output(Mode.POSITION, ROBOT.default_pose, 0))
    there.mode = "ai"  # somebody starts it again
    assert there.until(lambda: SECOND_DAMPS in asked(transport))
    transport.close()


def test_a_mode_that_does_not_let_go_and_a_robot_that_is_not_there_are_refused(there, monkeypatch):
    monkeypatch.setattr(module, "RELEASE_PAUSE", 0.01)
    there.mode, there.stubborn = "normal", True
    transport = connected(there, started=False)
    with pytest.raises(InputError, match="normal"):
        transport.release()
    transport.close()
    assert not there.commands
    monkeypatch.setattr(module, "STATE_WITHIN", 0.2)
    nobody = UnitreeTransport(Bus(DOMAIN, "lo"), ROBOT, MessageFilter(ROBOT, SteadyClock().now), dry_run=True)
    with pytest.raises(InputError, match="lowstate"):
        nobody.listen()
    nobody.close()


@pytest.mark.parametrize("domain, interface", [(1, "nothing0"), (233, "lo"), (-1, "lo")])
def test_a_bus_that_cannot_be_is_refused(domain, interface):
    with pytest.raises(InputError):
        Bus(domain, interface)
