"""The control loop: one step every control period, on absolute deadlines, with the safety chain around the policy.

`Controller.step` is a pure step of the state machine and can be driven by any clock; `Loop` calls it in a thread of its
own. States: disarmed -> standing up -> running; soft stop (brake, stand, damp, disarm); emergency (damping, latched).
"""

import contextlib
import gc
import math
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from robot.loop import safety
from robot.loop.clock import Clock, Durations
from robot.loop.message_filter import MessageFilter
from robot.loop.motion import POSES, Motion
from robot.loop.onboard_policy import OnboardPolicy
from robot.loop.parameters import number, whole
from robot.loop.plausibility import PolicyAnswers
from robot.loop.recording import REQUESTS, SECOND_DAMPS, SECOND_STOPS, Recorder, step_row
from robot.loop.refusals import Code, Refusal
from robot.loop.safety import Action, Context, Limits, Verdict
from robot.loop.transport import IMPLAUSIBLE_DAMPS, NS, Array, Mode, Output, Request, State, Transport
from sim.errors import InputError


@dataclass(frozen=True)
class Times:
    """How long the controller takes over its own motions, and how its thread runs."""

    stand_up: float = number(1.5, 0.2, 10.0, "Standing up takes this long, in s.")
    stood: float = number(
        0.5, 0.05, 3.14, "Joints must be this near the standing pose before the policy takes over, in rad."
    )
    level: float = number(
        0.6, 0.1, 3.2, "Largest lean of the base after standing up, in rad; an A-frame's ramp is 0.52 rad."
    )
    brake: float = number(1.0, 0.0, 5.0, "A soft stop first brakes with the policy for this long, in s.")
    stand: float = number(0.5, 0.1, 5.0, "A soft stop then goes to the standing pose in this time, in s.")
    hold: float = number(1.0, 0.0, 60.0, "A soft stop then holds the standing pose for this long, in s.")
    settle: float = number(2.0, 0.1, 10.0, "A soft stop at last damps for this long before it disarms, in s.")
    priority: int = whole(0, 0, 99, "Real-time priority (SCHED_FIFO) of the loop's thread; 0 asks for none.")
    core: int = whole(-1, -1, 1023, "Processor core of the loop's thread; -1 means any.")

    @property
    def soft_stop(self) -> float:
        """How long a soft stop takes from braking until the robot is disarmed, s."""
        return self.brake + self.stand + self.hold + self.settle


BRAKING, STANDING, HOLDING, SETTLING = "brake", "stand", "hold", "damp"
HEARD = 0.5
"""A request to arm that had to wait longer than this is not granted, s: who asked has gone."""
SWITCH_INTERVAL = 0.0005
"""s for which one Python thread may hold up another; Python's own 5 ms is a quarter of a control period."""
CONTESTED = 1.0
"""No robot is armed for so long after a second sender was heard or readings did not agree, and drives damp for so long
after a second sender, s: longer than any topic but latched ones is silent between two messages."""
SECOND = Code.SECOND_SENDER, "somebody else sends as well"
MOVING = 0.1
"""A robot that is asked for more than this (m/s or rad/s) moves, so its readings must change."""
TUPLES, LENGTHS = 2000, range(1, 9)
"""CPython keeps so many freed tuples of each length for later, and the loop makes tuples of these lengths."""


class Change(NamedTuple):
    """One change of the controller's state."""

    time: int
    """ns."""
    said: str
    """State, phase and reason, as they are logged."""
    code: Code
    why: str


class Controller:
    """The state machine around one policy. Not for several threads: `step` is called by one."""

    def __init__(
        self,
        policy: OnboardPolicy,
        messages: MessageFilter,
        transport: Transport,
        limits: Limits = Limits(),
        times: Times = Times(),
        *,
        recorder: Recorder | None = None,
        dry_run: bool = False,
        needs_pose: bool = True,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        """In a dry run everything is computed and nothing sent. Without `needs_pose` the ground is taken as flat."""
        self.policy, self.messages, self.transport = policy, messages, transport
        self.robot = policy.robot
        limits = limits.of(self.robot)
        self.limits, self.times, self.dry_run, self.log = limits, times, dry_run, log
        self.period = round(self.robot.control_period * NS)
        self.recorder, self.refusals = recorder, messages.refusals
        self.state, self.phase = State.DISARMED, ""
        self.code, self.reason = Code.NOT_ARMED, "not armed yet"
        """Why it is in this state, for programs and for people."""
        self.output = Output(Mode.NOTHING, np.array(self.robot.default_pose, np.float32), 0)
        self.context = Context(self.robot, limits, needs_pose=needs_pose)
        self.history: deque[Change] = deque(maxlen=200)
        """The last changes of state."""
        self._entered = 0
        self._due: int | None = None
        """Deadline of the step before, ns."""
        self._sent = 0
        """When something was last sent, ns."""
        self._contested: int | None = None
        """When something last told of a second sender or of implausible messages, ns..."""
        self._contest = Refusal(Code.SECOND_SENDER, "")
        """... and what it told."""
        self.answers = PolicyAnswers(limits.answer_moved, limits.answer_still)
        self.motion = Motion(self.robot, limits, policy.terrain)
        self._from = np.zeros(self.robot.joints, np.float32)
        self._recoverable = False
        self._recording_said = False
        self.warm_up()

    def warm_up(self) -> None:
        """Computes the policy for nothing, in the calling thread: the first steps are slower and take memory, which is
        each thread's own. Not for a robot that is held."""
        self.policy.warm_up()
        self.motion.warm_up(self.limits)

    # --- one step -------------------------------------------------------------------------------------------------

    def step(self, now: int, late: float = 0.0, took: float = 0.0) -> Output:
        """One control step at `now` (ns).

        Args:
          late: by how much it began after its deadline, s.
          took: how long the step before took, s.
        """
        context = self.context
        context.now, context.snapshot = now, self.messages.snapshot()
        held = self.output.mode == Mode.POSITION and not self.dry_run
        context.targets = self.output.targets if held else None
        period = self.robot.control_period
        missed = min(int(max(took, late) / period), 2)
        context.overran = context.overran + missed if missed else 0
        self._count_deadlines(now, late)
        context.silent = self._silent(now)
        requests = self._requests(now)
        try:
            for request in requests:
                self._answer(request, now)
            context.doubts = self._doubts(now)
            context.ground = self._ground()
            self._advance(now)
            mode, targets = self._act(now)
            mode, targets = self._begun_anew(mode, targets, now)
        except Exception as error:  # whatever went wrong, a robot that is held is damped
            mode, targets = self._failed(
                Code.CONTROL_STEP, f"the control step failed: {type(error).__name__}: {error}", now
            )
        self._send(mode, targets, now)
        command = context.snapshot.command
        moves = self.state in (State.STANDING_UP, State.RUNNING) or self.phase == BRAKING
        self.messages.moving = moves and bool(np.abs(command).max() > MOVING)
        self._record(now, late, took, [request.kind for request in requests])
        return self.output

    def report(self, more: dict[str, Any]) -> None:
        """Publishes the status with something `more`. That it cannot be published stops no robot."""
        with contextlib.suppress(Exception):
            self.transport.report(self.status() | more)

    def status(self) -> dict[str, Any]:
        """JSON-ready: state, why, what was refused how often."""
        return {
            "state": self.state.name.lower().replace("_", " "),
            "phase": self.phase,
            "code": self.code,
            "reason": self.reason,
            "dry_run": self.dry_run,
            "refusals": dict(self.refusals.counts),
            "last_refusals": self.refusals.sentences(),
            "recording": self.recorder.problem if self.recorder else None,
        }

    def monitors(self) -> dict[str, tuple[float, float]]:
        """What readings differed by at most so far, and its limit, by the code that a contradiction has; the policy's
        is what its targets changed by at least while joints moved."""
        every = (self.messages.gyro, self.messages.joint_speeds, self.answers, *self.motion.every())
        return {monitor.CODE: (monitor.peak, monitor.limit) for monitor in every if math.isfinite(monitor.peak)}

    def _doubts(self, now: int) -> list[Verdict]:
        """What is wrong with how a robot that is held moves."""
        context, running = self.context, self.state == State.RUNNING
        self.motion.ground = None
        if self.state in (State.DISARMED, State.EMERGENCY) or self.phase == SETTLING:
            return []
        command = np.zeros(3) if self.phase == BRAKING else None
        if running:
            command, _ = safety.bounded_command(context.snapshot.command, self.policy.command_ranges)
        found = self.motion.see(now, context.snapshot, context.targets, command, self._pose_fresh())
        if self.motion.doubt_of_grid is not None:
            self.refusals.add(now, self.motion.doubt_of_grid)
        return found

    def _ground(self) -> float | None:
        """Height of the mapped ground under the base, m; None where the robot need not know its pose."""
        if not self.context.needs_pose:
            return None
        known = self.motion.ground
        return self.policy.terrain.below(self.context.snapshot) if known is None else known

    def _pose_fresh(self) -> bool:
        context = self.context
        return context.needs_pose and context.age(context.snapshot.pose_time) <= self.limits.pose_timeout

    def _count_deadlines(self, now: int, late: float) -> None:
        """Notes which deadlines passed since the step before without a step."""
        due = now - round(late * NS)
        passed = 1 if self._due is None else max(round((due - self._due) / self.period), 1)
        self._due = due
        self.context.deadlines.extend([True] * min(passed - 1, safety.WINDOW) + [False])

    def _silent(self, now: int) -> float:
        """Seconds for which the drives of a held robot were sent nothing."""
        held = self.output.mode == Mode.POSITION and not self.dry_run
        return max(now - self._sent, 0) / NS if held else 0.0

    def _begun_anew(self, mode: Mode, targets: Array, now: int) -> tuple[Mode, Array]:
        """What is sent after a step in which, or before which, the drives had to wait: damping where they have let go,
        targets near the joints where they may have moved."""
        context = self.context
        context.silent = self._silent(max(self.messages.clock(), now))
        if mode != Mode.POSITION or context.silent <= safety.WAITED * self.limits.away:
            return mode, targets
        verdict = safety.present(context)
        if verdict is not None:
            self._emergency(verdict.refusal, now)
            return Mode.DAMP, targets
        allowed = self.limits.start_of(self.robot)
        targets, problem = safety.near_the_joints(targets, context.snapshot.position, allowed, self.robot)
        if problem is not None:
            self.refusals.add(now, problem)
        return mode, targets

    # --- operators ------------------------------------------------------------------------------------------------

    def _requests(self, now: int) -> list[Request]:
        """What operators ask for; what cannot be granted whatever the state is answered here."""
        waiting = self.messages.requests
        kept: list[Request] = []
        for request in [waiting.popleft() for _ in range(len(waiting))]:
            waited = 0.0 if request.asked is None else (now - request.asked) / NS
            if request.kind not in REQUESTS:
                said = f"unknown request {str(request.kind)[:40]!r}: known are {', '.join(REQUESTS)}"
                request.answer(False, Code.UNKNOWN_REQUEST, said)
            elif request.kind == "arm" and waited > HEARD:
                request.answer(False, Code.REQUEST_OLD, f"the request is {waited:.3f} s old, limit {HEARD}")
            else:
                kept.append(request)
        return kept

    def _answer(self, request: Request, now: int) -> None:
        if request.kind == "arm":
            problem = self._why_not_arm()
            if problem is None:
                self._enter(State.STANDING_UP, now, Code.ARMED, "armed")
                request.answer(True, Code.ARMED, "armed, standing up")
            else:
                request.answer(False, problem.code, problem.sentence)
        elif request.kind == "stop":
            if self.state in (State.STANDING_UP, State.RUNNING):
                self._stop(Verdict(Action.STOP, Code.OPERATOR, "the operator asked to stop"), now)
            elif self.state == State.SOFT_STOP:
                self._recoverable = False
            request.answer(True, self.code, f"{self.status()['state']}: {self.reason}")
        elif request.kind == "disarm":
            if self.state in (State.STANDING_UP, State.RUNNING):
                self._emergency(Refusal(Code.OPERATOR, "the operator disarmed a moving robot"), now)
            elif self.state == State.SOFT_STOP and self.phase != SETTLING:
                self._enter(State.SOFT_STOP, now, Code.OPERATOR, "the operator disarmed", SETTLING)
            elif self.state != State.DISARMED:
                self._enter(State.DISARMED, now, Code.OPERATOR, "the operator disarmed")
            request.answer(True, self.code, f"{self.status()['state']}: {self.reason}")
        elif request.kind in (SECOND_STOPS, SECOND_DAMPS, IMPLAUSIBLE_DAMPS):
            self._part(request, now)

    def _part(self, request: Request, now: int) -> None:
        """Two programs that send the same, or readings that do not agree, are not obeyed: a robot that is held is let
        down, none is armed."""
        implausible = request.kind == IMPLAUSIBLE_DAMPS
        code, words = SECOND if not implausible else (Code.IMPLAUSIBLE, "readings do not agree with each other")
        cause = Refusal(request.about or code, request.cause or words)
        self._contested, self._contest = now, cause
        held = self.state in (State.STANDING_UP, State.RUNNING, State.SOFT_STOP) and self.phase != SETTLING
        if request.kind != SECOND_STOPS and held:
            self._emergency(cause, now)
        elif self.state in (State.STANDING_UP, State.RUNNING):
            self._stop(Verdict(Action.STOP, cause.code, cause.sentence), now)
        elif self.state == State.SOFT_STOP:
            self._recoverable = False
        request.answer(True, cause.code, cause.sentence)

    def _why_not_arm(self) -> Refusal | None:
        """Why the robot must not be armed now; None if it may be."""
        if self.state not in (State.DISARMED, State.EMERGENCY):
            return Refusal(Code.ALREADY_ARMED, f"it is already {self.status()['state']}")
        contested = math.inf if self._contested is None else (self.context.now - self._contested) / NS
        if contested <= CONTESTED:
            sentence = f"{self._contest.sentence}, {contested:.3f} s ago, limit {CONTESTED}"
            return Refusal(self._contest.code, sentence, contested, CONTESTED)
        self.context.stood = False
        verdict = safety.strictest(safety.ALWAYS, self.context)
        if verdict is not None:
            return verdict.refusal
        lean = safety.lean(self.context.snapshot)
        if lean > self.limits.tilt:
            sentence = f"the base leans by {lean:.2f} rad, limit {self.limits.tilt}"
            return Refusal(Code.TILT, sentence, lean, self.limits.tilt)
        age = self.context.age(self.context.snapshot.pose_time)
        if self.context.needs_pose and age > self.limits.pose_timeout:
            return Refusal(Code.POSE_STALE, "there is no fresh pose", age, self.limits.pose_timeout)
        return None

    # --- states ---------------------------------------------------------------------------------------------------

    def _enter(self, state: State, now: int, code: Code, why: str, phase: str = "") -> None:
        if state == State.STANDING_UP:
            self.policy.reset()
            self.answers.reset()
            self.motion.reset()
            here = np.array(self.context.snapshot.position, np.float32)
            self._from = np.clip(here, self.robot.joint_lower, self.robot.joint_upper)
            self.output = replace(self.output, targets=self._from)
        if state == State.RUNNING:
            self.context.stood = True
        if (state, phase) != (self.state, self.phase):
            said = f"{state.name.lower().replace('_', ' ')}{f' ({phase})' if phase else ''}: {why}"
            self.history.append(Change(now, said, code, why))
            with contextlib.suppress(Exception):  # a log that cannot be written stops no robot
                self.log(said)
        self.state, self.phase, self.code, self.reason = state, phase, code, why
        self._entered = now
        self.report({})

    def _stop(self, verdict: Verdict, now: int) -> None:
        self.refusals.add(now, verdict.refusal)
        self._recoverable = verdict.action == Action.BRAKE
        running = self.state == State.RUNNING and verdict.action != Action.STAND
        self._from = self.output.targets
        self._enter(State.SOFT_STOP, now, verdict.code, verdict.sentence, BRAKING if running else STANDING)

    def _failed(self, code: Code, why: str, now: int) -> tuple[Mode, Array]:
        """Something that must not happen did. Returns what is sent: damping, or nothing by a disarmed robot."""
        failure = Refusal(code, why)
        if self.state == State.DISARMED:
            self.refusals.add(now, failure)
            return Mode.NOTHING, self.output.targets
        if self.state == State.EMERGENCY:
            self.refusals.add(now, failure)
        else:
            self._emergency(failure, now)
        return Mode.DAMP, self.output.targets

    def _emergency(self, why: Refusal, now: int) -> None:
        self.refusals.add(now, why)
        self._enter(State.EMERGENCY, now, why.code, why.sentence)

    def _elapsed(self, now: int) -> float:
        return (now - self._entered) / NS

    def _advance(self, now: int) -> None:
        """Changes of state by what is seen and by time."""
        if self.state in (State.DISARMED, State.EMERGENCY):
            return
        settling = self.state == State.SOFT_STOP and self.phase == SETTLING
        running = self.state == State.RUNNING or (self.state == State.SOFT_STOP and self.phase == BRAKING)
        checks = safety.ALWAYS + (safety.RUNNING if running else ())
        verdict = None if settling else safety.strictest(checks, self.context)
        if verdict is not None and verdict.action == Action.DAMP:
            self._emergency(verdict.refusal, now)
        elif self.state == State.STANDING_UP:
            self._standing_up(verdict, now)
        elif self.state == State.RUNNING and verdict is not None:
            self._stop(verdict, now)
        elif self.state == State.SOFT_STOP:
            self._stopping(verdict, now)

    def _standing_up(self, verdict: Verdict | None, now: int) -> None:
        if verdict is not None:
            self._stop(verdict, now)
        elif self._elapsed(now) >= self.times.stand_up:
            off = np.abs(self.context.snapshot.position - self.robot.default_pose)
            worst = int(off.argmax())
            if off[worst] > self.times.stood:
                name = self.robot.joint_names[worst]
                sentence = f"{name} is {off[worst]:.2f} rad from the standing pose, limit {self.times.stood}"
                self._stop(Verdict(Action.STAND, Code.STANDING_UP, sentence, float(off[worst]), self.times.stood), now)
            elif (lean := safety.lean(self.context.snapshot)) > self.times.level:
                sentence = f"the base leans by {lean:.2f} rad after standing up, limit {self.times.level}"
                self._stop(Verdict(Action.STAND, Code.STANDING_UP, sentence, lean, self.times.level), now)
            else:
                self._enter(State.RUNNING, now, Code.STOOD, "standing")

    def _stopping(self, verdict: Verdict | None, now: int) -> None:
        elapsed, times = self._elapsed(now), self.times
        if self.phase == BRAKING:
            if verdict is not None and verdict.action > Action.BRAKE:
                self._recoverable = False
            if verdict is not None and verdict.action == Action.STAND:
                self._stop(verdict, now)
            elif verdict is None and self._recoverable:
                self._enter(State.RUNNING, now, Code.RECOVERED, f"goes on, over: {self.reason}")
            elif elapsed >= times.brake:
                self._from = self.output.targets
                self._enter(State.SOFT_STOP, now, self.code, self.reason, STANDING)
        elif self.phase == STANDING and elapsed >= times.stand:
            self._enter(State.SOFT_STOP, now, self.code, self.reason, HOLDING)
        elif self.phase == HOLDING and elapsed >= times.hold:
            self._enter(State.SOFT_STOP, now, self.code, self.reason, SETTLING)
        elif self.phase == SETTLING and elapsed >= times.settle:
            self._enter(State.DISARMED, now, self.code, f"stopped: {self.reason}")

    # --- what the joints are asked for ----------------------------------------------------------------------------

    def _act(self, now: int) -> tuple[Mode, Array]:
        before = self.output.targets
        if self.state == State.DISARMED:
            return Mode.NOTHING, before
        if self.state == State.EMERGENCY or self.phase == SETTLING:
            return Mode.DAMP, before
        if self.state == State.RUNNING or self.phase == BRAKING:
            wanted = self._policy_targets(now)
            if wanted is None:  # the policy failed: `_policy_targets` has changed the state
                return self._act(now)
        else:
            seconds = self.times.stand_up if self.state == State.STANDING_UP else self.times.stand
            wanted = self._towards_standing(now, seconds)
        targets, problem = safety.bounded_targets(wanted, before, self.robot, self.limits.target_step)
        if problem is not None:
            self.refusals.add(now, problem)
        return Mode.POSITION, targets

    def _towards_standing(self, now: int, seconds: float) -> Array:
        """On a smooth way from where the joints were to the standing pose: straight, or, by a robot that lies, with its
        feet drawn in below its hips first, from where it can rise without tipping over."""
        share = 1.0 if self.phase == HOLDING else min(self._elapsed(now) / seconds, 1.0)
        standing = self.robot.default_pose
        if self.state != State.STANDING_UP or np.abs(self._from - standing).max() <= self.times.stood:
            return _smooth(self._from, standing, share)
        drawn_in = self.robot.folded_pose
        if share < 0.5:
            return _smooth(self._from, drawn_in, 2 * share)
        return _smooth(drawn_in, standing, 2 * share - 1)

    def _policy_targets(self, now: int) -> Array | None:
        snapshot = self.context.snapshot
        pose_known = self._pose_fresh() and self.code not in POSES
        command = np.zeros(3)
        if self.state == State.RUNNING:
            command, problem = safety.bounded_command(snapshot.command, self.policy.command_ranges)
            if problem is not None:
                self.refusals.add(now, problem)
        try:
            targets = self.policy.targets(snapshot, command, now, pose_known)
            problem = safety.unusable(targets, self.robot.joints) or self.answers.see(targets, snapshot.position)
        except InputError as error:
            targets, problem = None, Refusal(Code.POLICY, str(error))
        except Exception as error:  # whatever a network or its runtime does, the robot stands
            targets, problem = None, Refusal(Code.POLICY, f"the policy failed: {type(error).__name__}: {error}")
        if problem is not None:
            self._stop(Verdict(Action.STAND, problem.code, problem.sentence, problem.value, problem.limit), now)
            return None
        return targets

    def _send(self, mode: Mode, targets: Array, now: int) -> None:
        self.output = Output(mode, targets, self.context.snapshot.joints_stamp)
        self._sent = max(self.messages.clock(), now)
        if mode == Mode.NOTHING or self.dry_run:
            return
        try:
            self.transport.write(self.output)
        except Exception as error:  # the drives' own watchdog damps; this loop must not go on as if it held them
            sentence = f"the joints cannot be reached: {type(error).__name__}: {error}"
            mode, targets = self._failed(Code.UNREACHABLE, sentence, now)
            self.output = replace(self.output, mode=mode)

    def _record(self, now: int, late: float, took: float, requests: list[str]) -> None:
        if self.recorder is None:
            return
        snapshot = self.context.snapshot
        try:
            row = step_row(now, late, took, requests, snapshot, self.state, self.output)
            self.recorder.step(row, snapshot, (str(self.code), self.reason))
        except Exception as error:  # a recording that fails stops no robot
            sentence = f"a step was not recorded: {type(error).__name__}: {error}"
            self.refusals.add(now, Refusal(Code.RECORDING, sentence))
        if self.recorder.problem and not self._recording_said:
            self._recording_said = True
            self.refusals.add(now, Refusal(Code.RECORDING, self.recorder.problem))


def _smooth(begin: Array, end: Array, share: float) -> Array:
    """Joint angles on the way, rad `[J]`: at rest at both ends."""
    return begin + (3 * share**2 - 2 * share**3) * (end - begin)


class Punctuality:
    """What the loop measured of itself since it began."""

    def __init__(self) -> None:
        self.steps = self.missed = 0
        self._took, self._late = Durations(), Durations()

    def add(self, took: float, late: float, missed: int) -> None:
        """One step: how long it took and how late it began, s; how many later deadlines had passed when it ended."""
        self._took.add(took)
        self._late.add(late)
        self.steps += 1
        self.missed += missed

    def summary(self) -> dict[str, float]:
        """`tick_ms_p50`, `tick_ms_p99`, `tick_ms_max`, `late_ms_p99`, `missed_deadline_rate`, `ticks`."""
        return {
            "ticks": self.steps,
            "tick_ms_p50": 1e3 * self._took.quantile(0.5),
            "tick_ms_p99": 1e3 * self._took.quantile(0.99),
            "tick_ms_max": 1e3 * self._took.largest,
            "late_ms_p99": 1e3 * self._late.quantile(0.99),
            "missed_deadline_rate": self.missed / max(self.steps + self.missed, 1),
        }


def _fill_free_lists() -> None:
    """Takes now the memory that CPython's lists of freed tuples grow to in the first minutes of a loop, 1 MB: a
    collection has emptied them, and no other comes while the loop runs."""
    for length in LENGTHS:
        [tuple([None] * length) for _ in range(TUPLES)]


class Loop:
    """Calls a controller at absolute deadlines until it is told to end."""

    REPORT_EVERY = 25
    """Control steps between two reports."""

    def __init__(self, controller: Controller, clock: Clock) -> None:
        self.controller, self.clock = controller, clock
        self.punctuality = Punctuality()
        self._warm, self._ending = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Begins, in a thread of its own; returns when that is warm, so that requests are heard at once."""
        self._thread = threading.Thread(target=self._guarded, name="control loop", daemon=True)
        self._thread.start()
        self._warm.wait()

    def end(self, timeout: float = 5.0) -> None:
        """Ends the loop after its present step."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def run(self, until: Callable[[], bool] | None = None) -> None:
        """The loop itself; `until` is asked after every step. The garbage collector is off meanwhile."""
        controller, clock, period = self.controller, self.clock, self.controller.period
        collected = gc.isenabled()
        gc.collect()
        gc.disable()
        _fill_free_lists()
        try:
            self._warm.set()
            deadline, took = clock.now() + period, 0.0
            while not self._ending.is_set():
                clock.sleep_until(deadline)
                began = clock.now()
                late = (began - deadline) / NS
                controller.step(began, late, took)
                ended = clock.now()
                took = (ended - began) / NS
                missed = max((ended - deadline - 1) // period, 0)
                self.punctuality.add(took, late, missed)
                deadline += period * (1 + missed)  # the grid of deadlines stays; what was missed is not caught up
                if self.punctuality.steps % self.REPORT_EVERY == 0:
                    controller.report(self.punctuality.summary())
                if until is not None and until():
                    return
        finally:
            if collected:
                gc.enable()

    def _guarded(self) -> None:
        try:
            self._settle_thread()
            self.controller.warm_up()
            self.run()
        except BaseException as error:  # the main thread must know; the robot's own watchdog damps meanwhile
            self.failure = error
            with contextlib.suppress(Exception):
                self.controller.log(f"the control loop ended: {type(error).__name__}: {error}")
        finally:
            self._warm.set()

    def _settle_thread(self) -> None:
        """Real-time priority and core, where they are asked for and permitted."""
        times, log = self.controller.times, self.controller.log
        try:
            if times.core >= 0:
                os.sched_setaffinity(0, {times.core})
            if times.priority > 0:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(times.priority))
        except (OSError, ValueError) as error:
            log(f"note: no real-time scheduling: {error}")
            return
        if times.priority > 0 or times.core >= 0:
            core = times.core if times.core >= 0 else "any"
            log(f"note: the loop runs with priority {times.priority} on core {core}")
