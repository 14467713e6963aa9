"""The simulated robot on Unitree's messages: what it obeys, and the maker's own client standing it up."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from robot.loop.clock import SteadyClock
from robot.loop.refusals import Refusals
from robot.transports.unitree.bus import Bus, Outbox
from robot.transports.unitree.messages import LOW_CMD_MESSAGE, LOW_COMMAND, POWER_OFF, low_command
from robot.transports.unitree.simulated import Law, ServoedHardware, UnitreeRobot
from sim.course.description import official
from sim.robots.description import robot_by_name

ROBOT = robot_by_name("unitree_go2")
PATIENT = replace(ROBOT, drives=replace(ROBOT.drives, watchdog=20.0))
DOMAIN = 100 + os.getpid() % 100


def test_motors_obey_the_law_of_each_command():
    hardware = ServoedHardware(ROBOT, official())
    zero = np.zeros(12)
    tau = np.linspace(-3, 3, 12)
    hardware.ask(Law(zero, zero, tau, zero, zero))  # torque alone
    hardware.advance(1 + int(hardware.worlds.delay[0]))
    np.testing.assert_allclose(hardware.worlds.force[0], tau, atol=1e-6)
    q = np.array(hardware.physics.qpos[0, 7:]) + 0.05
    hardware.ask(Law(q, zero + 0.5, zero, zero + 20.0, zero + 0.5))
    hardware.advance(1 + int(hardware.worlds.delay[0]))
    before = np.array(hardware.physics.qpos[0, 7:]), np.array(hardware.physics.qvel[0, 6:])
    hardware.advance(1)
    expected = 20.0 * (q - before[0]) + 0.5 * (0.5 - before[1])
    np.testing.assert_allclose(hardware.worlds.force[0], expected, atol=0.05)
    hardware.advance(int(ROBOT.drives.watchdog * 1000) + 5)
    assert hardware.damping  # nobody commands any more


@pytest.fixture
def standing():
    """A robot that runs in a thread, and its bus."""
    bus = Bus(DOMAIN, "lo")
    robot = UnitreeRobot(bus, ServoedHardware(PATIENT, official()), SteadyClock(), Refusals())
    ending = SimpleNamespace(asked=0)
    thread = threading.Thread(target=robot.run, args=(ending,))
    thread.start()
    yield robot
    ending.asked = 1
    thread.join()
    robot.close()
    bus.close()


def until(holds, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return False


def test_commands_are_obeyed_only_whole_and_without_the_robots_own_mode(standing):
    out = Outbox(Bus(DOMAIN, "lo"), LOW_COMMAND, LOW_CMD_MESSAGE)
    refused: Counter[str] = standing.refusals.counts
    good, bad, off = low_command().seal(), low_command(), low_command()
    off["bms_cmd.off"] = POWER_OFF
    off.seal()

    def sends(command, holds) -> bool:
        def send() -> bool:
            out.send(command)
            return holds()

        return until(send)

    assert sends(good, lambda: refused["second sender"] > 0) and not standing.commands
    standing._release({})
    assert sends(bad, lambda: refused["checksum"] > 3)
    count = standing.commands  # one that was under way at the release
    assert sends(bad, lambda: refused["checksum"] > 10) and standing.commands == count
    assert sends(good, lambda: standing.commands > count)
    assert sends(off, lambda: refused["operator"] > 0)
    count = standing.commands
    assert not until(lambda: standing.commands > count, 0.1)


def test_the_makers_client_stands_it_up_and_lays_it_down(standing):
    heights: list[float] = []
    script = Path(__file__).with_name("sdk_client.py")
    client = subprocess.Popen([sys.executable, str(script), str(DOMAIN)], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    lines = []
    for line in client.stdout:
        if line.startswith("{"):
            lines.append(json.loads(line))
            heights.append(float(standing.hardware.pose()[0][2] - 0.0))
    assert client.wait(30) == 0
    *_, last = lines
    assert last["modes"] == ["normal", ""] and last["wrong"] == 0 and last["grows"]
    ground = float(standing.hardware.course.height(*(standing.hardware.pose()[0][i : i + 1] for i in (0, 1)))[0])
    lying, up, held, down = (height - ground for height in heights[:4])
    assert held > 0.3 and up > 0.25 and max(lying, down) < 0.2, heights
    assert 8.0 < last["up"] < 12.0  # lies still: gravity alone
    assert standing.summary()["refusals"] == {}
