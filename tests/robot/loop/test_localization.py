"""The localizer's program on readings of simulated hardware: where it says that the robot is, and what it refuses."""

from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policies.skills.library import Skills, load_skills
from robot.loop.clock import NS, SimulatedClock
from robot.loop.localization import BELIEVED, Believed, LocalizationProgram, Locating
from robot.loop.message_filter import MessageFilter
from robot.loop.refusals import Code
from robot.loop.transport import Mode
from robot.transports.hardware import SLICE, STEP_NS, SimulatedHardware
from sim import observation as obs
from sim.course.description import official
from sim.errors import InputError
from sim.localization import PoseErrors
from sim.planar import wrap

LATE = PoseErrors(noise=0.02, yaw_noise=0.035, delay=0.06, rate=50)
PERIOD = SLICE * STEP_NS
"""ns between two readings."""


@pytest.fixture(scope="module")
def skills() -> Skills:
    return load_skills()


class Rig:
    """A robot in simulation, its readings, and the localizer that gets them."""

    def __init__(self, skills: Skills, errors: PoseErrors = PoseErrors(), **options: Any) -> None:
        own = options.get("own_odometry", False)
        self.hardware = SimulatedHardware(
            skills.robot, official(), 3, pose_errors=errors, own_odometry=own, reckons=False
        )
        self.clock = SimulatedClock()
        self.messages = MessageFilter(skills.robot, self.clock.now, plausible=BELIEVED)
        self.program = LocalizationProgram(skills, official(), Locating(**options), self.messages, self._hear)
        self.stamp = 7 * NS
        """Less the hardware's time: the readings' clock is another one than this computer's."""
        self.told: list[tuple[float, np.ndarray, np.ndarray]] = []
        """When, x, y, z and heading as told by the localization, and as they are."""
        self.said: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
        """Stamp, x, y, z and heading as the localizer says, as they are, and the velocity."""
        self.changed: dict[str, Any] = {}
        """What readings hold in place of what the hardware says."""

    @property
    def true(self) -> np.ndarray:
        position, orientation = self.hardware.pose()
        return np.array([*position, float(obs.yaw_of(np, orientation))])

    def _hear(self, said: Believed) -> None:
        place = np.array([*said.position, float(obs.yaw_of(np, said.orientation))])
        self.said.append((said.stamp - self.stamp, place, self.true, said.velocity))

    def run(self, seconds: float, readings: bool = True, imu_first: bool = False) -> None:
        for _ in range(round(seconds / (PERIOD / NS))):
            self.hardware.advance(SLICE)
            self.clock.pass_by(PERIOD / NS)
            told, reading = self.hardware.told_pose(), self.hardware.sense() | self.changed
            if not readings:
                continue
            if told is not None:
                self.told.append((self.hardware.time / NS, self._pose(*told), self.true))
            calls = [self._joints, self._imu]
            for call in reversed(calls) if imu_first else calls:
                call(reading, self.hardware.time + self.stamp)

    def _pose(self, position: np.ndarray, orientation: np.ndarray, at: int) -> np.ndarray:
        assert self.messages.odometry(position, orientation, at + self.stamp)
        self.program.seen(at + self.stamp)
        return np.array([*position, float(obs.yaw_of(np, orientation))])

    def _joints(self, reading: dict[str, Any], stamp: int) -> None:
        names = ("names", "position", "velocity", "effort")
        if self.messages.joints(*(reading[name] for name in names), stamp):
            self.program.joints()

    def _imu(self, reading: dict[str, Any], stamp: int) -> None:
        if self.messages.imu(reading["orientation"], reading["angular_velocity"], stamp):
            self.program.inertial(stamp, reading["linear_acceleration"])

    def push(self) -> None:
        """The standing robot is pushed ahead and aside, and turned."""
        self.hardware.physics.qvel[0, [0, 1, 5]] = 1.0, 0.3, 1.0

    @property
    def refusals(self) -> set[str]:
        return {key.split(" ", 1)[1] for key in self.messages.refusals.counts}


def off(rows: list[Any]) -> tuple[float, float]:
    """Root of the mean square of what places (m) and headings (rad) are off."""
    wrong = np.array([row[1] - row[2] for row in rows])
    return float(np.sqrt((wrong[:, :2] ** 2).sum(1).mean())), float(np.sqrt((wrap(wrong[:, 3]) ** 2).mean()))


@pytest.mark.parametrize("imu_first", [False, True])
def test_it_is_nearer_to_the_truth_than_the_poses_that_it_is_told(skills, imu_first):
    rig = Rig(skills, LATE)
    rig.run(0.4, imu_first=imu_first)
    told, said = len(rig.told), len(rig.said)
    rig.push()
    rig.run(0.6, imu_first=imu_first)
    raw, found = off(rig.told[told:]), off(rig.said[said:])
    assert found[0] < 0.5 * raw[0] and found[1] < 0.6 * raw[1]
    stamps = np.diff([row[0] for row in rig.said])
    assert (stamps > 0).all() and stamps.max() <= NS // 50, "50 Hz at least, on the readings' clock"
    still = np.array([row[3] for row in rig.said[said // 2 : said]])
    assert np.abs(still).max() < 0.2, "a robot that stands does not move"


def test_without_legs_the_walkers_model_carries_poses_on(skills, tmp_path):
    file = tmp_path / "robot.xml"
    file.write_text("<mujoco/>")
    rig = Rig(skills, LATE)
    bundles = tuple(copy(bundle) for bundle in skills.bundles)
    for bundle in bundles:
        bundle.robot = replace(bundle.robot, mjcf=file)
    other = replace(skills, bundles=bundles)
    rig.program = LocalizationProgram(other, official(), Locating(), rig.messages, rig._hear)
    assert rig.program.odometry is None
    rig.run(0.6)
    assert off(rig.said[-10:])[0] < off(rig.told)[0]
    with pytest.raises(InputError, match="feet"):
        LocalizationProgram(other, official(), Locating(own_odometry=True), rig.messages, rig._hear)


def test_by_own_odometry_it_begins_where_it_is_said_to_and_knows_its_way(skills):
    x, y, heading = official().start
    rig = Rig(skills, own_odometry=True, start=f"{x + 0.2} {y} {heading}")
    rig.run(0.6)
    first = rig.said[0]
    np.testing.assert_allclose(first[1] - first[2], [0.2, 0.0, 0.0, 0.0], atol=0.02)
    rig.push()
    rig.run(0.6)
    assert np.linalg.norm(rig.said[-1][2][:2] - first[2][:2]) > 0.05, "it has moved"
    np.testing.assert_allclose(rig.said[-1][1] - rig.said[-1][2], [0.2, 0.0, 0.0, 0.0], atol=0.04)
    assert rig.program.lost is None


def test_a_robot_that_lies_is_where_it_lies(skills):
    """No foot bears anything: without being held it would glide away."""
    rig = Rig(skills, own_odometry=True)
    rig.hardware.mode = Mode.DAMP
    rig.run(3.0)
    place = np.array([row[1] for row in rig.said[-100:]])
    assert len(rig.said) > 200 and np.ptp(place[:, :2], axis=0).max() < 0.02 and rig.program.lost is None


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"linear_acceleration": None}, Code.MALFORMED),
        ({"linear_acceleration": np.zeros(3)}, Code.MALFORMED),
        ({"linear_acceleration": np.full(3, np.nan)}, Code.NOT_FINITE),
        ({"linear_acceleration": np.array([0.0, 0.0, 1.0])}, Code.NO_GRAVITY),
        ({"linear_acceleration": np.array([9.81, 0.0, 0.0])}, Code.NO_GRAVITY),
        ({"linear_acceleration": np.array([0.0, 0.0, 1e4])}, Code.OUT_OF_RANGE),
        ({"effort": ()}, Code.MALFORMED),
    ],
)
def test_what_own_odometry_cannot_do_without_is_refused_and_nothing_is_sent(skills, changed, code):
    rig = Rig(skills, own_odometry=True)
    rig.changed = changed
    rig.run(0.6)
    assert not rig.said and code in rig.refusals
    seen = Rig(skills, LATE)
    seen.changed = changed
    seen.run(0.6)
    assert seen.said and code in seen.refusals, "with poses the walker's model is enough"


def test_own_odometry_that_was_cut_off_for_long_is_lost_for_good(skills):
    short, long, still = (Rig(skills, own_odometry=True, gap=0.1) for _ in range(3))
    for rig, gap in ((short, 0.06), (long, 0.3), (still, 0.3)):
        rig.run(0.5)
        if rig is not still:
            rig.push()
            rig.run(0.02)
        rig.run(gap, readings=False)
        said = len(rig.said)
        rig.run(0.3)
        rig.gained = len(rig.said) - said  # type: ignore[attr-defined]
    assert short.gained > 20 and short.program.lost is None  # type: ignore[attr-defined]
    assert still.gained > 20 and still.program.lost is None, "it has not moved meanwhile"  # type: ignore[attr-defined]
    assert long.gained == 0 and long.program.lost is not None  # type: ignore[attr-defined]


def test_torques_that_say_nothing_end_own_odometry_once_the_robot_moves(skills):
    rig = Rig(skills, own_odometry=True)
    rig.changed = {"effort": np.zeros(skills.robot.joints)}
    rig.run(0.5)
    assert rig.program.lost is None
    for _ in range(30):
        rig.push()
        rig.run(0.06)
    assert rig.program.lost is not None and rig.program.lost.code == Code.ALOFT
    said = len(rig.said)
    rig.run(0.2)
    assert len(rig.said) == said


def test_without_poses_nothing_is_sent_for_longer_than_it_may_be_blind(skills):
    rig = Rig(skills, LATE, blind=0.1)
    rig.run(0.4)
    rig.hardware.worlds.localization = None
    rig.hardware.unseen = True
    said = len(rig.said)
    rig.run(0.4)
    assert 5 <= len(rig.said) - said <= 15


def test_poses_whose_age_cannot_be_are_refused(skills):
    rig = Rig(skills, LATE)
    rig.run(0.2)
    said = len(rig.said)
    assert said and not rig.program.seen(0) and not rig.program.seen(rig.hardware.time + rig.stamp + NS)
    assert not rig.program.seen(rig.hardware.time + rig.stamp - NS)
    assert rig.messages.refusals.counts["pose late"] == 3


def test_all_readings_count_where_this_program_was_held_up(skills):
    """Joints first, then the IMU's, as they lie in the queues: each is taken with those of its own time, and while
    there are many in larger steps."""
    rig, late = Rig(skills, own_odometry=True), Rig(skills, own_odometry=True)
    for one in (rig, late):
        one.run(0.5)
        one.push()
    rig.run(0.12)
    kept: list[tuple[Any, ...]] = []
    late._imu = lambda reading, stamp: kept.append((reading, stamp))  # type: ignore[method-assign]
    late.run(0.12)
    del late._imu
    for reading, stamp in kept:
        late._imu(reading, stamp)
    assert late.said[-1][0] == pytest.approx(rig.said[-1][0], abs=0.009 * NS)
    at = [row[0] for row in rig.said].index(late.said[-1][0])
    np.testing.assert_allclose(late.said[-1][1], rig.said[at][1], atol=8e-3)
    assert [row[0] for row in late.said] != [row[0] for row in rig.said], "places of the past are of no use to anybody"


@pytest.mark.parametrize("start", ["1 2", "1 2 nan", "a b c", "1e9 0 0", "1 2 3 4"])
def test_a_start_that_is_none_is_refused(skills, start):
    with pytest.raises(InputError, match="start"):
        Rig(skills, own_odometry=True, start=start)
