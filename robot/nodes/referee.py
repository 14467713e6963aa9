"""The referee as a ROS 2 node: poses and touches of the board in, the live score out, the result at the end."""

import threading
from pathlib import Path
from typing import Any

from robot.loop.clock import SteadyClock
from robot.loop.declarations import RefereeParameters
from robot.loop.referee import Referee
from robot.loop.refusals import Refusals
from robot.loop.timing import LOOK_EVERY, SAY_EVERY, SCORE_EVERY
from robot.loop.transport import NS, Array
from robot.nodes.ending import Ending, check_report, write_report
from robot.transports.ros2 import RefereePort, RosNode
from sim.course.files import by_name
from sim.errors import InputError
from sim.robots.description import find_robot

RESULT, LOG = "RESULT.json", "pose.csv"


class Timekeeper:
    """A referee whose poses come from another thread, and who does not wait for ever."""

    def __init__(self, options: RefereeParameters, now: int) -> None:
        self.options = options
        self.referee = Referee(by_name(options.course), options.time_limit, find_robot(options.robot).fall)
        self._began = self._heard = now
        self._lock = threading.Lock()

    def pose(self, now: int, stamp: int, position: Array, orientation: Array) -> None:
        """A pose that came in at `now`, see `Referee.pose`."""
        with self._lock:
            self._heard = now
            self.referee.pose(stamp, position, orientation)

    def touch_board(self) -> None:
        """The board was touched."""
        with self._lock:
            self.referee.touch_board()

    def look(self, now: int) -> dict[str, Any]:
        """The live score at `now` (ns); gives up a run that does not go on."""
        with self._lock:
            live = self.referee.live()
            started = live["obstacles"]["start table"]
            if now - self._heard > self.options.patience * NS:
                self.referee.give_up("no pose")
            elif not started and now - self._began > self.options.start_patience * NS:
                self.referee.give_up("not started")
            return live | {"end": self.referee.end}

    def finish(self, why: str) -> dict[str, Any]:
        """The result, JSON-ready, with the pose log written where there is a folder for it."""
        with self._lock:
            self.referee.give_up(why)
            result = self.referee.result() | {"log": None}
            if self.options.out and self.referee.times:
                log = Path(self.options.out) / LOG
                log.parent.mkdir(parents=True, exist_ok=True)
                self.referee.write(log)
                result["log"] = str(log)
            return result


def run_referee(node: RosNode, ending: Ending) -> dict[str, Any]:
    """The program of the node `referee`; ends with the run and returns its result.

    Raises:
      InputError: a parameter, course or folder that cannot be.
    """
    options = node.parameters(RefereeParameters)
    check_report(Path(options.out) / RESULT if options.out else None)
    clock = SteadyClock()
    keeper = Timekeeper(options, clock.now())

    def pose(stamp: int, position: Array, orientation: Array) -> None:
        keeper.pose(clock.now(), stamp, position, orientation)

    port = RefereePort(node, pose, keeper.touch_board, Refusals(node.say), clock.now, truth=options.true_pose)
    node.spin()
    node.say(f"waiting for the robot on the course {options.course}")
    deadline, said, live = clock.now(), 0, {"end": ""}
    while not live["end"] and not ending.asked:
        deadline += round(SCORE_EVERY * NS)
        live = _until(deadline, keeper, clock, ending)
        port.score(live)
        if clock.now() - said > SAY_EVERY * NS or live["end"]:
            said = clock.now()
            node.say(_line(live))
    result = keeper.finish("stopped")
    node.say(f"{result['end']}: score {result['score']:.3f}, {result['time_s'] or 0.0:.2f} s")
    if options.out:
        try:
            write_report(Path(options.out) / RESULT, result)
        except OSError as error:
            raise InputError(f"cannot write to {options.out}: {error.strerror}") from error
    return result


def _until(deadline: int, keeper: Timekeeper, clock: SteadyClock, ending: Ending) -> dict[str, Any]:
    """Looks on until `deadline` (ns), or the end."""
    while True:
        live = keeper.look(clock.now())
        left = deadline - clock.now()
        if left <= 0 or live["end"] or ending.asked:
            return live
        clock.sleep_until(clock.now() + min(left, round(LOOK_EVERY * NS)))


def _line(live: dict[str, Any]) -> str:
    done = [name for name, completed in live["obstacles"].items() if completed]
    return f"{live['time_s']:.1f} s, score {live['score']:.3f}, passed: {', '.join(done) or 'nothing yet'}"
