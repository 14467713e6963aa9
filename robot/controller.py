"""The control loop: one step every control period, on absolute deadlines, with the safety chain around the policy.

`Controller.step` is a pure step of the state machine and can be driven by any clock; `Loop` calls it in a thread of its
own. States: disarmed -> standing up -> running; soft stop (brake, stand, damp, disarm); emergency (damping, latched).
"""

import gc
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot import safety
from robot.brain import Brain
from robot.clock import Clock
from robot.parameters import number, whole
from robot.recording import Recorder, step_row
from robot.safety import Action, Context, Limits, Verdict
from robot.transport import NS, Intake, Mode, Output, Request, Snapshot, State, Transport
from sim.errors import InputError


@dataclass(frozen=True)
class Times:
    """How long the controller takes over its own motions, and how its thread runs."""

    stand_up: float = number(1.5, 0.2, 10.0, "standing up takes this long, s")
    stood: float = number(
        0.5, 0.05, 3.14, "joints must be this near the standing pose before the policy takes over, rad"
    )
    brake: float = number(1.0, 0.0, 5.0, "a soft stop brakes with the policy for this long, s")
    stand: float = number(0.5, 0.1, 5.0, "then goes to the standing pose in this time, s")
    hold: float = number(1.0, 0.0, 60.0, "holds it, s")
    settle: float = number(2.0, 0.1, 10.0, "and damps for this long before it disarms, s")
    priority: int = whole(0, 0, 99, "real-time priority (SCHED_FIFO) of the loop's thread; 0: none")
    core: int = whole(-1, -1, 1023, "processor core of the loop's thread; -1: any")


BRAKING, STANDING, HOLDING, SETTLING = "brake", "stand", "hold", "damp"


class Controller:
    """The state machine around one policy. Not for several threads: `step` is called by one."""

    def __init__(
        self,
        brain: Brain,
        intake: Intake,
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
        self.brain, self.intake, self.transport = brain, intake, transport
        self.limits, self.times, self.dry_run, self.log = limits, times, dry_run, log
        self.robot = brain.robot
        self.period = round(self.robot.control_period * NS)
        self.recorder, self.refusals = recorder, intake.refusals
        self.state, self.phase, self.reason = State.DISARMED, "", "not armed yet"
        self.output = Output(Mode.NOTHING, np.array(self.robot.default_pose, np.float32), 0)
        self.context = Context(self.robot, limits, needs_pose=needs_pose)
        self.history: deque[tuple[int, str, str]] = deque(maxlen=200)
        """Changes of state: time (ns), state, why."""
        self._entered = 0
        self._from = np.zeros(12, np.float32)
        self._recoverable = False
        self._recording_said = False
        brain.warm_up()

    # --- one step -------------------------------------------------------------------------------------------------

    def step(self, now: int, late: float = 0.0, took: float = 0.0) -> Output:
        """One control step at `now` (ns).

        Args:
          late: by how much it began after its deadline, s.
          took: how long the step before took, s.
        """
        requests = self._requests()
        snapshot = self.intake.snapshot()
        context = self.context
        context.now, context.snapshot = now, snapshot
        period = self.robot.control_period
        context.overran = context.overran + 1 if took > period or late > period else 0
        context.ground = self.brain.terrain.below(snapshot) if context.needs_pose else None
        for request in requests:
            self._answer(request, now)
        self._advance(now)
        mode, targets = self._act(now)
        self.intake.moving = self.state in (State.STANDING_UP, State.RUNNING) and bool(np.abs(snapshot.command).any())
        self.output = Output(mode, targets, snapshot.joints_stamp)
        if mode != Mode.NOTHING and not self.dry_run:
            self.transport.write(self.output)
        self._record(now, late, took, [request.kind for request in requests], snapshot)
        return self.output

    def status(self) -> dict[str, Any]:
        """JSON-ready: state, why, what was refused how often."""
        return {
            "state": self.state.name.lower().replace("_", " "),
            "phase": self.phase,
            "reason": self.reason,
            "dry_run": self.dry_run,
            "refusals": dict(self.refusals.counts),
            "last_refusals": dict(self.refusals.last),
            "recording": self.recorder.problem if self.recorder else None,
        }

    # --- operators ------------------------------------------------------------------------------------------------

    def _requests(self) -> list[Request]:
        waiting = self.intake.requests
        return [waiting.popleft() for _ in range(len(waiting))]

    def _answer(self, request: Request, now: int) -> None:
        if request.kind == "arm":
            problem = self._why_not_arm()
            if not problem:
                self._enter(State.STANDING_UP, now, "armed")
            request.answer(not problem, problem or "armed, standing up")
        elif request.kind == "stop":
            if self.state in (State.STANDING_UP, State.RUNNING):
                self._stop(Verdict(Action.STOP, "operator", "the operator asked to stop"), now)
            elif self.state == State.SOFT_STOP:
                self._recoverable = False
            request.answer(True, f"{self.status()['state']}: {self.reason}")
        elif request.kind == "disarm":
            if self.state in (State.STANDING_UP, State.RUNNING):
                self._emergency("the operator disarmed a moving robot", now)
            elif self.state != State.DISARMED:
                self._enter(State.DISARMED, now, "the operator disarmed")
            request.answer(True, f"{self.status()['state']}: {self.reason}")
        else:
            request.answer(False, f"unknown request '{request.kind}'")

    def _why_not_arm(self) -> str:
        """Why the robot must not be armed now; "" if it may be."""
        if self.state not in (State.DISARMED, State.EMERGENCY):
            return f"it is already {self.status()['state']}"
        verdict = safety.strictest(safety.ALWAYS, self.context)
        if verdict is not None:
            return verdict.sentence
        lean = safety.lean(self.context.snapshot)
        if lean > self.limits.tilt:
            return f"the base leans by {lean:.2f} rad, limit {self.limits.tilt}"
        if self.context.needs_pose and self.context.age(self.context.snapshot.pose_time) > self.limits.pose_timeout:
            return "there is no fresh pose"
        return ""

    # --- states ---------------------------------------------------------------------------------------------------

    def _enter(self, state: State, now: int, why: str, phase: str = "") -> None:
        if state == State.STANDING_UP:
            self.brain.reset()
            self._from = np.array(self.context.snapshot.position, np.float32)
            self.output.targets = self._from
            self.context.overran = 0
        if (state, phase) != (self.state, self.phase):
            said = f"{state.name.lower().replace('_', ' ')}{f' ({phase})' if phase else ''}: {why}"
            self.history.append((now, said, why))
            self.log(said)
        self.state, self.phase, self.reason = state, phase, why
        self._entered = now
        self.transport.report(self.status())

    def _stop(self, verdict: Verdict, now: int) -> None:
        self.refusals.add(now, verdict.kind, verdict.sentence)
        self._recoverable = verdict.action == Action.BRAKE
        running = self.state == State.RUNNING and verdict.action != Action.STAND
        self._from = self.output.targets
        self._enter(State.SOFT_STOP, now, verdict.sentence, BRAKING if running else STANDING)

    def _emergency(self, why: str, now: int, kind: str = "emergency") -> None:
        self.refusals.add(now, kind, why)
        self._enter(State.EMERGENCY, now, why)

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
            self._emergency(verdict.sentence, now, verdict.kind)
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
                self._stop(Verdict(Action.STAND, "standing up", sentence), now)
            else:
                self._enter(State.RUNNING, now, "standing")

    def _stopping(self, verdict: Verdict | None, now: int) -> None:
        elapsed, times = self._elapsed(now), self.times
        if self.phase == BRAKING:
            if verdict is not None and verdict.action > Action.BRAKE:
                self._recoverable = False
            if verdict is not None and verdict.action == Action.STAND:
                self._stop(verdict, now)
            elif verdict is None and self._recoverable:
                self._enter(State.RUNNING, now, f"goes on, over: {self.reason}")
            elif elapsed >= times.brake:
                self._from = self.output.targets
                self._enter(State.SOFT_STOP, now, self.reason, STANDING)
        elif self.phase == STANDING and elapsed >= times.stand:
            self._enter(State.SOFT_STOP, now, self.reason, HOLDING)
        elif self.phase == HOLDING and elapsed >= times.hold:
            self._enter(State.SOFT_STOP, now, self.reason, SETTLING)
        elif self.phase == SETTLING and elapsed >= times.settle:
            self._enter(State.DISARMED, now, f"stopped: {self.reason}")

    # --- what the joints are asked for ----------------------------------------------------------------------------

    def _act(self, now: int) -> tuple[Mode, np.ndarray]:
        before = self.output.targets
        if self.state == State.DISARMED:
            return Mode.NOTHING, before
        if self.state == State.EMERGENCY or self.phase == SETTLING:
            return Mode.DAMP, before
        if self.state == State.RUNNING or self.phase == BRAKING:
            wanted = self._policy(now)
            if wanted is None:  # the policy failed: `_policy` has changed the state
                return self._act(now)
        else:
            seconds = self.times.stand_up if self.state == State.STANDING_UP else self.times.stand
            wanted = self._towards_standing(now, seconds)
        targets, problem = safety.bounded_targets(wanted, before, self.robot, self.limits.target_step)
        if problem:
            self.refusals.add(now, "joint target", problem)
        return Mode.POSITION, targets

    def _towards_standing(self, now: int, seconds: float) -> np.ndarray:
        """On a smooth way from where the joints were to the standing pose."""
        share = min(self._elapsed(now) / seconds, 1.0)
        return self._from + (3 * share**2 - 2 * share**3) * (self.robot.default_pose - self._from)

    def _policy(self, now: int) -> np.ndarray | None:
        snapshot, context = self.context.snapshot, self.context
        pose_known = context.needs_pose and context.age(snapshot.pose_time) <= self.limits.pose_timeout
        command = np.zeros(3)
        if self.state == State.RUNNING:
            command, problem = safety.bounded_command(snapshot.command, self.brain.command_ranges)
            if problem:
                self.refusals.add(now, "command range", problem)
        try:
            targets = self.brain.targets(snapshot, command, now, pose_known)
            problem = safety.unusable(targets)
        except InputError as error:
            targets, problem = None, str(error)
        except Exception as error:  # whatever a network or its runtime does, the robot stands
            targets, problem = None, f"the policy failed: {type(error).__name__}: {error}"
        if problem:
            self._stop(Verdict(Action.STAND, "policy", problem), now)
            return None
        return targets

    def _record(self, now: int, late: float, took: float, requests: list[str], snapshot: Snapshot) -> None:
        if self.recorder is None:
            return
        self.recorder.step(step_row(now, late, took, requests, snapshot, self.state, self.output), snapshot)
        if self.recorder.problem and not self._recording_said:
            self._recording_said = True
            self.refusals.add(now, "recording", self.recorder.problem)


class Punctuality:
    """What the loop measured of itself, over at most the last `KEPT` steps."""

    KEPT = 100_000

    def __init__(self) -> None:
        self.steps = self.missed = 0
        self._took = np.zeros(self.KEPT, np.float32)
        self._late = np.zeros(self.KEPT, np.float32)

    def add(self, took: float, late: float, missed: bool) -> None:
        """One step: how long it took and how late it began, s; whether it ended after the next deadline."""
        k = self.steps % self.KEPT
        self._took[k], self._late[k] = took, late
        self.steps += 1
        self.missed += missed

    def summary(self) -> dict[str, float]:
        """`tick_ms_p50`, `tick_ms_p99`, `late_ms_p99`, `missed_deadline_rate`, `ticks`."""
        kept = min(self.steps, self.KEPT)
        took, late = (1e3 * values[:kept] if kept else np.zeros(1) for values in (self._took, self._late))
        return {
            "ticks": self.steps,
            "tick_ms_p50": float(np.quantile(took, 0.5)),
            "tick_ms_p99": float(np.quantile(took, 0.99)),
            "tick_ms_max": float(took.max()),
            "late_ms_p99": float(np.quantile(late, 0.99)),
            "missed_deadline_rate": self.missed / max(self.steps, 1),
        }


class Loop:
    """Calls a controller at absolute deadlines until it is told to end."""

    REPORT_EVERY = 25
    """Control steps between two reports."""

    def __init__(self, controller: Controller, clock: Clock) -> None:
        self.controller, self.clock = controller, clock
        self.punctuality = Punctuality()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Begins, in a thread of its own."""
        self._thread = threading.Thread(target=self._guarded, name="control loop", daemon=True)
        self._thread.start()

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
        try:
            deadline, took = clock.now() + period, 0.0
            while not self._ending.is_set():
                clock.sleep_until(deadline)
                began = clock.now()
                late = (began - deadline) / NS
                controller.step(began, late, took)
                ended = clock.now()
                took = (ended - began) / NS
                missed = ended > deadline + period
                self.punctuality.add(took, late, missed)
                behind = max((ended - deadline) // period, 0)
                deadline += period * (1 + behind)  # the grid of deadlines stays; what was missed is not caught up
                if self.punctuality.steps % self.REPORT_EVERY == 0:
                    controller.transport.report(controller.status() | self.punctuality.summary())
                if until is not None and until():
                    return
        finally:
            if collected:
                gc.enable()

    def _guarded(self) -> None:
        self._settle_thread()
        try:
            self.run()
        except BaseException as error:  # the main thread must know; the robot's own watchdog damps meanwhile
            self.failure = error

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
        if times.priority == 0 and times.core < 0:
            return
        log(f"note: the loop runs with priority {times.priority} on core {times.core if times.core >= 0 else 'any'}")
