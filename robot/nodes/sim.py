"""The simulated robot as a ROS 2 driver, in real time: joints and IMU at 250 Hz, poses at 125 Hz, joint commands in.

Poses with errors go to the localizer; by own odometry there are none."""

import threading
from pathlib import Path
from typing import Any

from robot.loop.clock import Durations, SteadyClock
from robot.loop.declarations import SimParameters
from robot.loop.refusals import Refusals
from robot.loop.transport import NS, Output
from robot.nodes.ending import Ending, check_report, write_report
from robot.transports.hardware import POSE_EVERY, SLICE, Pace, SimulatedHardware
from robot.transports.ros2 import LOCALIZATION, ODOMETRY, DriverPort, RosNode
from sim.course.files import by_name
from sim.localization import PoseErrors
from sim.robots.description import find_robot


class Driver:
    """Moves simulated hardware in real time and joins it to ROS.

    Stamps are the hardware's time on the wall clock of the start, so that
    setting the clock meanwhile changes nothing.
    """

    def __init__(self, node: RosNode, hardware: SimulatedHardware) -> None:
        self.node, self.hardware, self.clock = node, hardware, SteadyClock()
        self.refusals = Refusals(node.say)
        poses = None if hardware.unseen else LOCALIZATION if hardware.localized else ODOMETRY
        truth = not hardware.tells_truth
        self.port = DriverPort(
            node, hardware.robot, self._drive, self.refusals, self.clock.now, poses=poses, truth=truth
        )
        self.pace = Pace(self.clock, hardware)
        self.latencies = Durations()
        """From a reading's stamp to the arrival of the command that answers it."""
        self._wall = node.now() - self.pace.epoch
        self._slices = 0
        self._touched: bool | None = None
        self._damped = hardware.damping
        self._lock = threading.Lock()

    def run(self, ending: Ending) -> None:
        """Until the end is asked for."""
        while not ending.asked:
            self.pace.wait(SLICE)
            with self._lock:
                self.hardware.advance(SLICE)
            self._slices += 1
            self._publish()

    def summary(self) -> dict[str, Any]:
        """JSON-ready: what happened at the hardware's side."""
        return {
            "latency_ms": self.latencies.milliseconds(),
            "commands": self.latencies.count,
            "seconds": self.hardware.time / NS,
            "paused_s": self.pace.paused,
            "damping": self.hardware.damping,
            "commanded": self.hardware.commanded is not None,
            "diverged": self.hardware.diverged,
            "touched_board": self.hardware.touched_board,
            "refusals": dict(self.refusals.counts),
        }

    def _publish(self) -> None:
        hardware = self.hardware
        stamp = self.pace.epoch + hardware.time + self._wall
        self.port.joints(hardware.sense(), stamp)
        due = self._slices % POSE_EVERY == 0
        told = hardware.told_pose() if due or not hardware.tells_truth else None
        if told is not None:
            place, turned, true_at = told
            self.port.pose((place, turned), hardware.told_velocity(), stamp - hardware.time + true_at)
        if due and not hardware.tells_truth:
            self.port.true_pose(hardware.pose(), hardware.velocity(), stamp)
        if hardware.touched_board != self._touched:
            self._touched = hardware.touched_board
            self.port.board_touched(self._touched)
        if hardware.damping != self._damped:
            self._damped = hardware.damping
            self.node.say("the drives damp" if self._damped else "the drives hold their targets")

    def _drive(self, output: Output) -> None:
        if output.stamp:
            self.latencies.add((self.clock.now() + self._wall - output.stamp) / NS)
        answers = output.stamp - self._wall - self.pace.epoch if output.stamp else None
        with self._lock:
            self.hardware.command(output.mode, output.targets, answers)


def run_sim(node: RosNode, ending: Ending) -> dict[str, Any]:
    """The program of the node `sim`. Returns `Driver.summary`.

    Raises:
      InputError: a parameter, course or seed that cannot be.
    """
    options = node.parameters(SimParameters)
    check_report(options.report)
    hardware = SimulatedHardware(
        find_robot(options.robot),
        by_name(options.course),
        options.seed,
        randomize=options.randomize,
        torque_limit=options.torque_limit or None,
        pose_errors=PoseErrors.of(options),
        own_odometry=options.own_odometry,
        reckons=False,
    )
    driver = Driver(node, hardware)
    node.spin()
    node.say(f"simulated {hardware.robot.name} on the course {options.course}, seed {options.seed}")
    try:
        driver.run(ending)
    finally:
        if options.report:
            write_report(Path(options.report), driver.summary())
    return driver.summary()
