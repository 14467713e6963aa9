"""The course as a source of experience, and as the golden metric: evaluation physics, randomised, with the navigator.

Hand-overs between skills, weaving, mounting tables and holding still on them happen here as nowhere in the skills' own
training grounds.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.core.collect import CollectionPlan, Experience, Student
from distill.core.episodes import EpisodeRecorder
from distill.locomotion.drive import RecordingDriver
from distill.locomotion.student import TorchBundle, TransformerStudent, student_skills
from policies.evaluation.course_run import CourseWorlds
from policies.evaluation.evaluate import summarize
from policies.evaluation.outcome import CourseRun
from policies.skills.library import PACES_SUFFIX, Skills
from sim.course.description import Course
from sim.course.generator import BETWEEN, short
from sim.course.score import MAX_TIME
from sim.envs.worlds import world_seeds

ROWS_PER_RUN = 950
"""Control steps of an average run with its five seconds on the end table."""
LONGEST_RUN = 32.0
"""s after which a run is given up."""
PIECE = 4.0
"""s of a run that begins anywhere."""
SHORT_ROWS_PER_RUN = 600
"""Control steps of an average run of a course with two obstacles."""


class Robots(NamedTuple):
    """What kind of robots run a course."""

    torque_limit: float | None = None
    """Peak torque of the motors, N m; the robot's own without it."""
    randomize: bool = True
    """Else nominal: as described, with the longest latency that is drawn, which randomised ones hardly ever have."""


class CourseCollector:
    """Runs of courses, driven by the specialists, the student, or both."""

    longest = LONGEST_RUN
    """s after which a run ends."""

    def __init__(
        self,
        teachers: Skills,
        courses: Sequence[Course],
        robots: Sequence[Robots] = (Robots(),),
        threads: int = 0,
        *,
        name: str = "course",
        always: int = 1,
        others: int = 1,
        rows_per_run: int = ROWS_PER_RUN,
    ) -> None:
        """The first round runs on all `courses`, every later one on the first `always` and on `others` of the rest in
        turn, evenly by each kind of `robots`.
        """
        self.name, self.teachers, self.courses = name, teachers, tuple(courses)
        self.robots, self.threads = tuple(robots), threads
        self.always, self.others, self.rows_per_run = always, others, rows_per_run

    def courses_of(self, round: int) -> tuple[Course, ...]:
        """Those that a round runs on."""
        rest = self.courses[self.always :]
        if round == 0 or not rest:
            return self.courses
        few = min(self.others, len(rest))
        return (*self.courses[: self.always], *(rest[(round * few + k) % len(rest)] for k in range(few)))

    def groups(self, plan: CollectionPlan) -> list[tuple[Course, Robots, int, int]]:
        """Course, kind of robots, how many of them and seed of what is to run side by side."""
        pairs = [(course, kind) for course in self.courses_of(plan.round) for kind in self.robots]
        runs = max(round(plan.rows / self.rows_per_run / len(pairs)), 1)
        return [(course, kind, runs, (plan.seed * 31 + k) % 2**31) for k, (course, kind) in enumerate(pairs)]

    def collect(self, student: Student | None, plan: CollectionPlan) -> Experience:
        """About `plan.rows` rows, and what `_experience` makes of them."""
        fields: list[dict[str, np.ndarray]] = []
        episodes: list[int] = []
        results: list[CourseRun] = []
        for course, kind, runs, seed in self.groups(plan):
            recorder, found = self._run(student, plan, course, kind, runs, seed)
            rows, lengths = recorder.episodes()
            fields.append(rows)
            episodes += lengths
            results += found
        return self._experience(joined(fields), episodes, results, plan)

    def _run(
        self, student: Student | None, plan: CollectionPlan, course: Course, kind: Robots, runs: int, seed: int
    ) -> tuple[EpisodeRecorder, list[CourseRun]]:
        """One of the `groups`."""
        driver = RecordingDriver(self.teachers, as_bundle(student, self.teachers), runs, plan.beta, seed)
        worlds = CourseWorlds(
            course, self.teachers, world_seeds(seed, runs), randomize=kind.randomize,
            time_limit=self.longest, torque_limit=kind.torque_limit, threads=self.threads,
            policy=driver,
        )  # fmt: skip
        self._begin(worlds, seed)
        going = True
        while going:
            driver.alive = worlds.running & (worlds.robots.upright > 0)
            going = worlds.step()
        return driver.recorder, worlds.results()

    def _begin(self, worlds: CourseWorlds, seed: int) -> None:
        """Runs begin at the course's start."""

    def _experience(
        self, rows: dict[str, np.ndarray], episodes: list[int], results: list[CourseRun], plan: CollectionPlan
    ) -> Experience:
        """`gain` is the mean score of the runs."""
        score, finished = np.mean([(run.result.score, run.result.finished) for run in results], 0).tolist()
        return Experience(rows, episodes, {"gain": max(score, 0.01), "finished": finished})


class AnywhereCollector(CourseCollector):
    """Pieces of `PIECE` s of courses, which begin at rest at places drawn along their ways (`Navigator.starts`).

    Robots that begin a course at its start come to each obstacle at nearly the same phase of their gait, in the same
    physics always at the same one. A student that saw only those is lost where something on the way delays it.
    """

    longest = PIECE

    def __init__(
        self, teachers: Skills, courses: Sequence[Course], robots: Sequence[Robots] = (Robots(),), threads: int = 0
    ) -> None:
        """As `CourseCollector`, of every robot alike."""
        rows = round(PIECE / teachers.robot.control_period)
        super().__init__(teachers, courses, robots, threads, name="anywhere", rows_per_run=rows)

    def _begin(self, worlds: CourseWorlds, seed: int) -> None:
        places = worlds.navigators[0].starts()
        worlds.begin_along(np.random.default_rng([0xA1, seed]).choice(places, len(worlds.navigators)))

    def _experience(
        self, rows: dict[str, np.ndarray], episodes: list[int], results: list[CourseRun], plan: CollectionPlan
    ) -> Experience:
        """`gain` is the share of robots on their feet."""
        stood = float(np.mean([run.end != "fell" for run in results]))
        return Experience(rows, episodes, {"gain": max(stood, 0.01), "stood": stood})


def between_obstacles(
    teachers: Skills, each: int, robots: Sequence[Robots] = (Robots(),), threads: int = 0
) -> CourseCollector:
    """Hand-overs, close together: `each` random courses of every two obstacles, in either order; `robots` as in
    `CourseCollector`.

    A run of the whole course is mostly poles, ramps and the end table; how a robot comes out of one obstacle, turns and
    goes into the next is over within a second, and is where students fail.
    """
    courses = [short(kinds, seed) for seed in range(each) for kinds in combinations(BETWEEN, 2)]
    return CourseCollector(
        teachers, courses, robots, threads, name="between", always=0, others=4, rows_per_run=SHORT_ROWS_PER_RUN
    )


def joined(fields: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Rows of several groups, one after the other."""
    return {name: np.concatenate([rows[name] for rows in fields]) for name in fields[0]}


def as_bundle(student: Student | None, teachers: Skills, beside: Path | None = None) -> TorchBundle | None:
    """What drives robots for a student of the loop, at the paces `beside` a bundle where there are some, or else at its
    walking teacher's."""
    if student is None:
        return None
    assert isinstance(student, TransformerStudent)
    walker = teachers.bundles[teachers.uses["walk"]]
    ranges = walker.metadata.command_ranges
    path = beside if beside is not None and beside.with_suffix(PACES_SUFFIX).is_file() else walker.path
    return TorchBundle(student.module, teachers.robot, ranges, path, student.target_step)


def course_score(
    teachers: Skills, course: Course, runs: int, seed: int, beside: Path | None = None
) -> Callable[[Student], dict[str, float]]:
    """A measure for the loop: the mean score of a student alone over `runs` randomised runs, always the same worlds;
    `beside` is as in `as_bundle`."""

    def measure(student: Student) -> dict[str, float]:
        bundle = as_bundle(student, teachers, beside)
        assert bundle is not None
        worlds = CourseWorlds(
            course, student_skills(bundle), world_seeds(seed, runs), randomize=True, time_limit=LONGEST_RUN
        )
        found = summarize(worlds.run())
        return {
            "golden": found["score_mean"],
            "finished": found["finished_rate"],
            "all_obstacles": found["all_obstacles_rate"],
            "time_s_median": MAX_TIME if found["time_s_median"] is None else found["time_s_median"],
        }

    return measure
