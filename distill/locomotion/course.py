"""The course as a source of experience, and as the golden metric: evaluation physics, randomised, with the navigator.

Hand-overs between skills, weaving, mounting tables and holding still on them happen here as nowhere in the skills' own
training grounds.
"""

from collections.abc import Callable, Sequence

import numpy as np

from distill.core.collect import CollectionPlan, Experience, Student
from distill.locomotion.drive import RecordingDriver
from distill.locomotion.student import TorchBundle, TransformerStudent, student_skills
from policies.evaluation.course_run import CourseWorlds
from policies.evaluation.evaluate import summarize
from policies.evaluation.outcome import CourseRun
from policies.skills.library import Skills
from sim.course.description import Course
from sim.course.score import MAX_TIME
from sim.envs.worlds import world_seeds

ROWS_PER_RUN = 950
"""Control steps of an average run with its five seconds on the end table."""
LONGEST_RUN = 32.0
"""s after which a run is given up."""


class CourseCollector:
    """Runs of courses, driven by the specialists, the student, or both."""

    name = "course"

    def __init__(
        self,
        teachers: Skills,
        courses: Sequence[Course],
        torque_limits: Sequence[float | None] = (None,),
        threads: int = 0,
    ) -> None:
        """The first round runs on all `courses`, every later one on the first and one of the others in turn; motors are
        spread evenly over `torque_limits` (N m, None: the robot's)."""
        self.teachers, self.courses = teachers, tuple(courses)
        self.torque_limits, self.threads = tuple(torque_limits), threads

    def collect(self, student: Student | None, plan: CollectionPlan) -> Experience:
        """About `plan.rows` rows; `gain` is the mean score of the runs."""
        others = self.courses[1:]
        turn = self.courses if plan.round == 0 or not others else (self.courses[0], others[plan.round % len(others)])
        groups = [(course, limit) for course in turn for limit in self.torque_limits]
        runs = max(round(plan.rows / ROWS_PER_RUN / len(groups)), 1)
        fields: list[dict[str, np.ndarray]] = []
        episodes: list[int] = []
        results: list[CourseRun] = []
        for k, (course, limit) in enumerate(groups):
            bundle = as_bundle(student, self.teachers)
            seed = (plan.seed * 31 + k) % 2**31
            driver = RecordingDriver(self.teachers, bundle, runs, plan.beta, seed)
            worlds = CourseWorlds(
                course, self.teachers, world_seeds(seed, runs), randomize=True, time_limit=LONGEST_RUN,
                torque_limit=limit, threads=self.threads, policy=driver,
            )  # fmt: skip
            going = True
            while going:
                driver.alive = worlds.running & (worlds.robots.upright > 0)
                going = worlds.step()
            rows, lengths = driver.recorder.episodes()
            fields.append(rows)
            episodes += lengths
            results += worlds.results()
        joined = {name: np.concatenate([rows[name] for rows in fields]) for name in fields[0]}
        found = summarize(results)
        measured = {"gain": max(found["score_mean"], 0.01), "finished": found["finished_rate"]}
        return Experience(joined, episodes, measured)


def as_bundle(student: Student | None, teachers: Skills) -> TorchBundle | None:
    """What drives robots for a student of the loop."""
    if student is None:
        return None
    assert isinstance(student, TransformerStudent)
    walker = teachers.bundles[teachers.uses["walk"]]
    return TorchBundle(student.module, teachers.robot, walker.metadata.command_ranges, walker.path)


def course_score(teachers: Skills, course: Course, runs: int, seed: int) -> Callable[[Student], dict[str, float]]:
    """A measure for the loop: the mean score of a student alone over `runs` randomised runs, always the same worlds."""

    def measure(student: Student) -> dict[str, float]:
        bundle = as_bundle(student, teachers)
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
