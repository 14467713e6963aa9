"""One run, or many runs at once, of a course in evaluation physics: skills, navigator, scorer, ends, trace.

`CourseWorlds` is the simulation, `run` the front door of `barkour run`. Base install only (numpy, onnxruntime, mujoco).
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policies.evaluation.options import CourseRunOptions
from policies.evaluation.outcome import CourseRun, Switch, Trace
from policies.evaluation.own_senses import OwnSenses, own_senses
from policies.evaluation.results import RunReport
from policies.navigation.map_match import MapMatch, OwnPlace
from policies.navigation.navigator import Navigator
from policies.navigation.paces import Paces
from policies.navigation.pose_estimate import PoseEstimate
from policies.navigation.rehearsal import rehearsed
from policies.navigation.route_cache import planned
from policies.skills.library import Skills, load_skills, paces_of, response_of, trained_limits
from policies.skills.runner import PolicyRunner, Runner
from sim.course.description import Course
from sim.course.files import by_name
from sim.course.scene import course_model
from sim.course.score import MAX_TIME, Scorer, write_log
from sim.envs.variation import Variation
from sim.envs.worlds import SimulatedRobots
from sim.errors import InputError
from sim.folders import alone, replacing, writable
from sim.localization import OWN_ODOMETRY, PoseErrors
from sim.observation import Preview

# --- the simulation --------------------------------------------------------------------------------------------------


class CourseWorlds:
    """`len(seeds)` runs of a course side by side; equal seeds give equal runs whatever is run beside them."""

    def __init__(
        self,
        course: Course,
        skills: Skills,
        seeds: Sequence[int] | np.ndarray,
        *,
        randomize: bool = False,
        time_limit: float = MAX_TIME,
        torque_limit: float | None = None,
        paces: Paces | None = None,
        threads: int = 0,
        policy: Runner | None = None,
        pose_errors: PoseErrors = PoseErrors(),
        own_odometry: bool = False,
        variation: Variation = Variation(),
    ) -> None:
        """`torque_limit` (N m) replaces the robot's own, see `SimulatedRobots`; `paces` what the skills allow;
        navigator and terrain heights take the pose with `pose_errors`, the scorer takes the true one; `variation` is
        the engine and what is other in it.

        `policy` drives in place of the skills' own `PolicyRunner`.
        """
        self.course, self.skills, self.time_limit = course, skills, time_limit
        robot = skills.robot
        paces = paces or paces_of(skills, torque_limit)
        self.route = planned(course, robot.footprint, skills.able, paces)
        self.dt = robot.control_period
        self.robots = SimulatedRobots(
            robot, course_model(course, robot, variation.solver), seeds, randomize=randomize,
            torque_limit=torque_limit, threads=threads, pose_errors=pose_errors, variation=variation,
        )  # fmt: skip
        n = self.robots.worlds
        limits, response = trained_limits(skills, paces.limits), response_of(skills)
        navigator = rehearsed(course, self.route, limits, response, paces.made_up)
        self.navigators: list[Navigator] = [navigator.copy() for _ in range(n)]
        self.estimates = [PoseEstimate(response, MapMatch(course.height, robot.foot_radius)) for _ in range(n)]
        """Of where the robots are, from poses with errors; the true pose is taken as it is."""
        self.scorers = [Scorer(course) for _ in range(n)]
        self.policy: Runner = policy or PolicyRunner(skills, n)
        self.names = {index: skill for skill, index in skills.uses.items()}
        """Skill of each bundle."""
        self.traces = [Trace() for _ in range(n)]
        self.logs: list[list[tuple[float, float, float]]] = [[] for _ in range(n)]
        """What each scorer was told: s, x and y (m)."""
        self.switches: list[list[Switch]] = [[] for _ in range(n)]
        self.ends = [""] * n
        self.finals: list[tuple[float, list[float], float]] = [(0.0, [], 0.0)] * n
        x, y, yaw = course.start
        self.robots.place(np.full(n, x), np.full(n, y), np.full(n, yaw), course.height, course.pit)
        self.senses = OwnSenses(self.robots) if own_odometry else own_senses(self.robots) if pose_errors else None
        """How the robots have moved by their own senses, which holds poses with errors together."""
        self.own: list[OwnPlace] = []
        """Where the robots take themselves to be where nobody tells them."""
        if own_odometry and self.senses:
            matches = (MapMatch(course.height, robot.foot_radius) for _ in range(n))
            self.own = [OwnPlace(one, match) for one, match in zip(self.senses.odometry, matches, strict=True)]
        for i, (px, py, _) in enumerate(self.robots.pose.tolist()):
            self.scorers[i].update(0.0, px, py)
            self.logs[i].append((0.0, px, py))
            self._remember(i, 0.0, np.zeros(3), "walk", 0)

    def begin_along(self, s: np.ndarray) -> None:
        """Before the first step: stands the robots, at rest, `s` m `[worlds]` along their way.

        The scorers know nothing of it, so that a run has neither a score nor an end on its own but a fall.
        """
        there = [navigator.begin_along(along) for navigator, along in zip(self.navigators, s.tolist(), strict=True)]
        x, y, yaw = np.array(there).T
        self.robots.place(x, y, yaw, self.course.height, self.course.pit)
        self.traces = [Trace() for _ in self.traces]
        for i in range(self.robots.worlds):
            self._remember(i, 0.0, np.zeros(3), "walk", 0)

    @property
    def time(self) -> float:
        """Simulated seconds."""
        return self.robots.time

    @property
    def steps(self) -> int:
        """Control steps so far."""
        return self.robots.steps

    @property
    def running(self) -> np.ndarray:
        """Worlds whose run has not ended, bool `[worlds]`."""
        return np.array([not end for end in self.ends])

    def step(self) -> bool:
        """One control period of all worlds. Returns whether any run goes on."""
        robots, active = self.robots, self.running
        command = np.zeros((robots.worlds, 3), np.float32)
        users = np.full(robots.worlds, self.skills.uses["walk"])
        asked: dict[int, tuple[str, int]] = {}
        pose = self._poses(active)
        for i in np.flatnonzero(active).tolist():
            out = self.navigators[i].step(pose[i], self.dt)
            if robots.localization is not None:
                self.estimates[i].asked(out.velocity)
            command[i], users[i] = out.velocity, self.skills.uses[out.skill]
            asked[i] = (out.skill, out.waypoint)
        if self.senses:
            self.senses.awake = active
        began = self.time

        def preview(of: Preview) -> np.ndarray:
            seen = np.zeros((robots.worlds, len(of.seconds), 3), np.float32)
            for i in np.flatnonzero(active).tolist():
                seen[i] = self.navigators[i].preview(pose[i], of)
            return seen

        robots.step(lambda sensors, heights: self.policy.step(sensors, command, users, heights, preview))
        if len(self.skills.bundles) > 1:  # who really drives: a jumper lands before it is taken over
            asked = {i: (self.names[int(self.policy.users[i])], waypoint) for i, (_, waypoint) in asked.items()}
        for i in np.flatnonzero(self.policy.changed & active).tolist():
            jump, unblended = self.policy.jumps[i].tolist()
            switch = Switch(round(began, 6), self.traces[i].skill[-1], asked[i][0], jump, unblended)
            self.switches[i].append(switch)
        for i, (skill, waypoint) in asked.items():
            self._score(i)
            self._remember(i, self.time, command[i], skill, waypoint)
        self._ends(active)
        return bool(self.running.any())

    def _poses(self, active: np.ndarray) -> np.ndarray:
        """x, y (m) and heading (rad) now as the robots make them out from what they are told, `[worlds, 3]`."""
        robots, told = self.robots, self.robots.localization
        if self.own:
            for i in np.flatnonzero(active).tolist():
                self.own[i].see()
            robots.estimated = np.array([one.place for one in self.own])
            return robots.estimated[:, [0, 1, 3]]
        if told is None:
            return robots.known_pose
        places = np.array(told.pose)
        for i in np.flatnonzero(active).tolist():
            own = self.senses.odometry[i] if self.senses else None
            moved, feet = (own.moved(self.dt), own.feet) if own else (None, None)
            places[i] = self.estimates[i].told(told.pose[i], self.time - float(told.stamp[i]), moved, feet)
        robots.estimated = places
        return places[:, [0, 1, 3]]

    def run(self, progress: Callable[[float, int], None] | None = None) -> list[CourseRun]:
        """Runs until every world has ended; `progress(simulated seconds, runs still going)` is called every second."""
        while self.step():
            if progress and self.steps % round(1 / self.dt) == 0:
                progress(self.time, int(self.running.sum()))
        return self.results()

    def way(self) -> np.ndarray:
        """The path that the first robot is to follow, on the ground, m `[N, 3]`."""
        xy = self.navigators[0].path.xy
        return np.column_stack([xy, self.course.height(xy[:, 0], xy[:, 1])])

    def so_far(self, i: int) -> dict[str, Any]:
        """The score of a run that goes on, JSON-ready."""
        result = self.scorers[i].result()
        done = [name for name, obstacle in result.obstacles.items() if obstacle.completed]
        return {"score": result.score, "progress": result.progress, "completed": done}

    def seen(self, i: int) -> dict[str, str]:
        """What stands beside the live view of a run: name -> value."""
        scorer = self.scorers[i]
        gates = sum(len(obstacle.gates) for obstacle in self.course.obstacles)
        values = {"score": f"{scorer.result().score:.3f}", "gates": f"{sum(scorer.passed)} of {gates}"}
        return values | {"skill": self.traces[i].skill[-1]}

    def results(self) -> list[CourseRun]:
        """One `CourseRun` a world."""
        drawn = self.robots.drawn
        return [
            CourseRun(
                int(self.robots.seeds[i]), self.scorers[i].result(), self.ends[i] or "running", self.finals[i][0],
                self.traces[i], self.finals[i][1], self.finals[i][2], drawn.summary(i),
                self.switches[i], self.course.name,
            )
            for i in range(self.robots.worlds)
        ]  # fmt: skip

    def _score(self, i: int) -> None:
        scorer, robots = self.scorers[i], self.robots
        for board in np.flatnonzero(robots.touched_boards[i]).tolist():
            scorer.touch_jump(board)
        if robots.broken[i]:
            return
        for before_now, places in robots.places:
            time, (x, y) = round(self.time - before_now, 6), places[i].tolist()
            scorer.update(time, x, y)
            self.logs[i].append((time, x, y))

    def _remember(self, i: int, time: float, command: np.ndarray, skill: str, waypoint: int) -> None:
        robots, trace = self.robots, self.traces[i]
        if robots.broken[i]:
            return
        x, y, yaw = robots.pose[i].tolist()
        trace.time.append(round(time, 6))
        trace.pose.append((x, y, yaw))
        trace.height.append(float(robots.physics.qpos[i, 2]))
        vx, vy, rate = robots.velocity[i].tolist()
        trace.velocity.append((vx, vy, rate))
        trace.command.append((float(command[0]), float(command[1]), float(command[2])))
        trace.skill.append(skill)
        trace.waypoint.append(waypoint)

    def _ends(self, active: np.ndarray) -> None:
        robots = self.robots
        fallen = robots.fallen()
        for i in np.flatnonzero(active).tolist():
            end = robots.ending(i, bool(fallen[i]), self.scorers[i], self.course, self.time_limit)
            if end:
                self.ends[i] = end
                robots.physics.rest(~self.running)
                self.finals[i] = (self.time, robots.torque_peak[i].tolist(), float(robots.target_jump[i]))


# --- one run, as asked for on the command line -----------------------------------------------------------------------


def run(options: CourseRunOptions) -> RunReport:
    """Runs a course once and returns what `barkour run` prints.

    With `record` the folder gets `pose.csv` (the official scorer's log), `run.mcap` (`run_recording`), `path.png`,
    `run.json` and, where off-screen GL and ffmpeg exist, `run.mp4`. `watch` shows the run live in a browser.

    Raises:
      InputError: unknown policy or course, or a folder that cannot be written.
    """
    with alone(options.record, "records"):
        return _run(options)


def _run(options: CourseRunOptions) -> RunReport:
    folder = writable(options.record) if options.record is not None else None
    if options.watch:
        from policies.evaluation import live_view

        live_view.check_extra()
    where = by_name(options.course)
    skills = load_skills(options.policy, options.robot)
    worlds = CourseWorlds(
        where, skills, [options.seed], randomize=options.randomize, torque_limit=options.torque_limit,
        pose_errors=PoseErrors.of(options), own_odometry=options.own_odometry,
    )  # fmt: skip
    states: list[np.ndarray] = []
    viewer = recording = None
    if folder is not None:
        from policies.evaluation.run_recording import RunRecording

        recording = RunRecording(folder / "run.mcap", worlds.robots, worlds.way())
    if options.watch:
        from policies.evaluation.live_view import Viewer

        viewer = Viewer(worlds.robots.model, worlds.way(), listen=options.listen)
    while True:
        going = worlds.step()
        qpos = np.array(worlds.robots.physics.qpos[0])
        if recording is not None:
            states.append(qpos)
            trace = worlds.traces[0]
            recording.step(trace.command[-1], trace.skill[-1], worlds.so_far(0))
        if viewer is not None:
            viewer.show(qpos, worlds.time, worlds.traces[0].command[-1], worlds.seen(0))
        if not going:
            break
    outcome = worlds.results()[0]
    report = {
        **outcome.to_dict(),
        "policy": options.policy,
        "course": options.course,
        "skills": skills.describe(),
        "randomize": options.randomize,
        "torque_limit_nm": worlds.robots.torque_limit,
        "navigator_pose": OWN_ODOMETRY if options.own_odometry else PoseErrors.of(options).words(),
        "log": None,
    }
    if folder is not None and recording is not None:
        recording.close()
        _record(folder, outcome, report, where, worlds, states)
    return RunReport.of(report)


def write_text(path: Path, text: str) -> None:
    """Writes `text` whole, or leaves what was there before; a full or read-only disk is an `InputError`."""
    try:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may be any bytes
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _record(
    folder: Path,
    outcome: CourseRun,
    report: dict[str, Any],
    course: Course,
    worlds: CourseWorlds,
    states: list[np.ndarray],
) -> None:
    from policies.evaluation import plots, video

    log = folder / "pose.csv"
    touched = "; jump board touched" if outcome.result.touched_jump else ""
    comment = f"{report['policy']} on {report['course']}, seed {outcome.seed}{touched}"
    write_log(log, [t for t, _, _ in worlds.logs[0]], [(x, y) for _, x, y in worlds.logs[0]], comment)
    picture = folder / "path.png"
    plots.path_over_course(course, [outcome], picture, route=worlds.route)
    film = folder / "run.mp4"
    problem = video.film(worlds.robots.model, states, worlds.dt, film)
    if problem:
        print(f"no video: {problem}", file=sys.stderr)
    report["log"], report["picture"], report["recording"] = str(log), str(picture), str(folder / "run.mcap")
    report["video"] = None if problem else str(film)
    write_text(folder / "run.json", json.dumps(report, indent=2) + "\n")
