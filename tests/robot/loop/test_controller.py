"""The state machine, its deadlines, and whole courses through the loop."""

import gc
import threading
import time

import numpy as np
import pytest

from policies.evaluation import course_run
from policies.evaluation.options import CourseRunOptions
from robot.bench.rig import COMMAND, Rig
from robot.loop import safety
from robot.loop.clock import Durations, SimulatedClock, SteadyClock
from robot.loop.controller import BRAKING, CONTESTED, HOLDING, SETTLING, STANDING, Loop, Punctuality, Times
from robot.loop.recording import SECOND_DAMPS, SECOND_STOPS, Recorder, read
from robot.loop.refusals import Code
from robot.loop.transport import NS, Mode
from robot.options import OnboardOptions
from robot.transports import simulation

PERIOD = NS // 50


def phases(rig: Rig) -> list[str]:
    """States and phases in order, each once in a row."""
    found: list[str] = []
    for step in rig.steps:
        name = f"{step.state} {step.phase}".strip()
        if not found or found[-1] != name:
            found.append(name)
    return found


# --- states -----------------------------------------------------------------------------------------------------------


def test_from_arming_to_disarmed():
    rig = Rig()
    rig.bring_to("running")
    request = rig.ask("stop")
    rig.run(1.6)
    assert phases(rig) == [
        "disarmed", "standing up", "running", "soft stop brake", "soft stop stand", "soft stop hold", "soft stop damp",
        "disarmed",
    ]  # fmt: skip
    assert request.granted and request.code == Code.OPERATOR
    assert rig.violations() == []


def test_phases_of_a_soft_stop_last_as_long_as_they_are_said_to():
    times = Times(stand_up=0.3, brake=0.4, stand=0.2, hold=0.6, settle=0.8)
    rig = Rig(times=times)
    rig.bring_to("running")
    rig.ask("stop")
    rig.run(3.0)
    for phase, seconds in ((BRAKING, 0.4), (STANDING, 0.2), (HOLDING, 0.6), (SETTLING, 0.8)):
        assert sum(step.phase == phase for step in rig.steps) == round(seconds * 50), phase
    assert {step.output.mode for step in rig.steps if step.phase == SETTLING} == {Mode.DAMP}
    held = [step.output.targets for step in rig.steps if step.phase == HOLDING]
    np.testing.assert_allclose(held, np.tile(rig.robot.default_pose, (len(held), 1)), atol=1e-6)


def test_a_robot_on_the_ground_stands_up_smoothly():
    rig = Rig(lying=True, times=Times())
    low = float(rig.hardware.pose()[0][2])
    rig.run(0.1)
    rig.ask("arm")
    rig.run(2.5)
    assert low < 0.1 and rig.steps[-1].state == "running"
    assert rig.hardware.pose()[0][2] > 0.15
    targets = np.array([step.output.targets for step in rig.steps if step.state == "standing up"])
    assert np.abs(np.diff(targets, axis=0)).max() < 0.05
    assert not rig.controller.refusals.counts and rig.violations() == []


def test_a_robot_that_does_not_get_up_is_not_run():
    rig = Rig(lying=True, times=Times(stood=0.05, stand_up=0.2))
    rig.run(0.1)
    rig.ask("arm")
    rig.run(0.5)
    assert "running" not in phases(rig) and rig.controller.code == Code.STANDING_UP
    assert rig.controller.refusals.last[Code.STANDING_UP].limit == 0.05


def test_the_step_from_standing_to_the_policy_is_small():
    rig = Rig()
    rig.bring_to("running")
    first = [step.state for step in rig.steps].index("running")
    change = np.abs(rig.steps[first].output.targets - rig.steps[first - 1].output.targets).max()
    assert change < 0.5


@pytest.mark.parametrize(
    ("state", "kind", "expected"),
    [
        ("disarmed", SECOND_DAMPS, "disarmed"),
        ("soft stop", SECOND_DAMPS, "emergency"),
        ("running", SECOND_STOPS, "soft stop"),
    ],
)
def test_a_second_sender_lets_the_robot_down_and_keeps_it_there(state: str, kind: str, expected: str) -> None:
    rig = Rig()
    rig.bring_to(state)
    rig.messages.ask(kind, "another program sends as well")
    rig.run(0.04)
    assert rig.steps[-1].state == expected
    if state != expected:
        assert rig.controller.code == Code.SECOND_SENDER and rig.controller.refusals.counts[Code.SECOND_SENDER] == 1
    if expected in ("disarmed", "emergency"):
        refused = rig.ask("arm")
        rig.run(0.04)
        assert not refused.granted and refused.code == Code.SECOND_SENDER
        rig.run(CONTESTED)
        granted = rig.ask("arm")
        rig.run(0.04)
        assert granted.granted
    assert rig.violations() == []


@pytest.mark.parametrize(
    ("state", "asked"),
    [
        ("disarmed", {"stop": "disarmed", "disarm": "disarmed", "arm": "standing up"}),
        ("standing up", {"arm": "standing up", "stop": "soft stop"}),
        ("standing up", {"disarm": "emergency"}),
        ("running", {"arm": "running", "stop": "soft stop"}),
        ("running", {"disarm": "emergency"}),
        ("soft stop", {"arm": "soft stop", "stop": "soft stop", "disarm": "soft stop"}),
        ("emergency", {"stop": "emergency", "disarm": "disarmed"}),
        ("emergency", {"arm": "standing up"}),
    ],
)
def test_requests_are_answered_in_every_state(state, asked):
    rig = Rig()
    rig.bring_to(state)
    for kind, expected in asked.items():
        before = rig.steps[-1].state
        request = rig.ask(kind)
        rig.run(0.02)
        assert rig.steps[-1].state == expected
        assert request.granted == (kind != "arm" or before != expected)
        assert request.message and rig.violations() == []


def test_unknown_and_old_requests_are_refused_and_recordings_go_on(tmp_path):
    rig = Rig(recorder=lambda: Recorder(tmp_path / "run.mcap", {"schema": 1}))
    rig.run(0.04)
    odd, old = rig.ask("dance"), rig.ask("arm")
    old.asked -= NS
    rig.run(0.04)
    assert (odd.code, old.code) == (Code.UNKNOWN_REQUEST, Code.REQUEST_OLD)
    assert not odd.granted and not old.granted and rig.steps[-1].state == "disarmed"
    rig.recorder.close()
    assert not read(tmp_path / "run.mcap").steps["requests"].any()


def test_brakes_and_goes_on_when_commands_come_back():
    rig = Rig()
    rig.bring_to("running")
    rig.transport.command = None
    rig.run(0.3)
    assert rig.controller.phase == BRAKING
    rig.transport.command = COMMAND
    rig.run(0.1)
    assert rig.steps[-1].state == "running" and rig.controller.code == Code.RECOVERED


def test_an_operators_stop_is_final_also_while_braking_for_another_reason():
    rig = Rig()
    rig.bring_to("running")
    rig.transport.command = None
    rig.run(0.3)
    rig.ask("stop")
    rig.transport.command = COMMAND
    rig.run(1.6)
    assert phases(rig)[-4:] == ["soft stop stand", "soft stop hold", "soft stop damp", "disarmed"]


def test_a_robot_without_a_pose_source_runs_on_flat_ground():
    rig = Rig()
    rig.transport.tampers["pose"] = lambda message: None
    rig.controller.context.needs_pose = False
    rig.bring_to("running")
    assert rig.steps[-1].state == "running"


def test_a_dry_run_goes_through_all_states_and_sends_nothing():
    rig = Rig(dry_run=True)
    rig.bring_to("running")
    rig.ask("stop")
    rig.run(1.6)
    assert phases(rig)[-1] == "disarmed" and rig.transport.written == [] and rig.hardware.commanded is None
    assert rig.transport.reports[-1]["dry_run"] is True


def test_arming_begins_a_run_with_no_memory_of_the_last():
    rig = Rig()
    rig.bring_to("emergency")
    rig.run(1.0)
    rig.controller.times = Times()
    rig.ask("arm")
    rig.run(0.02)
    assert rig.policy._policy.users.tolist() == [-1]
    first = rig.steps[-1]
    np.testing.assert_allclose(first.output.targets, first.position, atol=0.01)
    rig.run(2.0)
    assert rig.steps[-1].state == "running"


def test_a_robot_that_does_not_stand_level_is_not_given_to_the_policy(monkeypatch):
    """Its joints reach the standing pose and its nose is on the ground."""
    rig = Rig()
    rig.run(0.1)
    monkeypatch.setattr(safety, "lean", lambda snapshot: 0.7)
    rig.ask("arm")
    rig.run(rig.controller.times.stand_up + 0.1)
    assert rig.steps[-1].state == "soft stop"
    refusal = rig.controller.refusals.last[Code.STANDING_UP]
    assert (rig.controller.code, refusal.value, refusal.limit) == (Code.STANDING_UP, 0.7, 0.6)


def test_a_robot_that_collapsed_at_speed_stands_up_level():
    """Legs that lie anyhow are drawn in below the hips first: straight to the standing pose it tips onto its nose."""
    rig = Rig()
    rig.bring_to("emergency")
    rig.run(1.0)
    rig.controller.times = Times()
    rig.ask("arm")
    rig.run(1.6)
    assert rig.steps[-1].state == "running" and safety.lean(rig.controller.context.snapshot) < 0.2


def test_every_change_of_state_is_reported_with_its_reason():
    rig = Rig()
    rig.bring_to("emergency")
    reported = [(r["state"], r["phase"]) for r in rig.transport.reports]
    assert ("standing up", "") in reported and ("running", "") in reported and ("emergency", "") in reported
    assert "ticks" in [r for r in rig.transport.reports if "ticks" in r][-1]
    assert all(r["reason"] for r in rig.transport.reports)


def test_reports_and_logs_that_fail_stop_nothing():
    rig = Rig()

    def broken(*_):
        raise BrokenPipeError

    rig.transport.report = rig.controller.log = broken
    rig.bring_to("running")
    assert rig.failure is None and rig.violations() == []


@pytest.mark.parametrize("seconds", [0.06, 0.08, 0.12, 0.5])
def test_targets_after_a_stall_lie_near_the_joints(seconds):
    """Whether the loop goes on or not: the joints have moved meanwhile."""
    rig = Rig()
    rig.bring_to("running")
    count = len(rig.steps)
    rig.clock.pass_by(seconds)
    rig.run(0.06)
    allowed = rig.limits.start_of(rig.robot)
    away = seconds > rig.controller.limits.away
    assert all((step.output.mode == Mode.DAMP) == away for step in rig.steps[count:])
    first = rig.steps[count]
    assert away or (np.abs(first.output.targets - first.position) <= allowed + 1e-6).all()
    assert rig.violations() == []


# --- the loop ---------------------------------------------------------------------------------------------------------


class Steps:
    """A controller that only takes time, seconds a step."""

    period = PERIOD
    times = Times()

    def __init__(self, clock: SimulatedClock, lasting: dict[int, float]) -> None:
        self.clock, self.lasting = clock, lasting
        self.began: list[int] = []
        self.told: list[tuple[float, float]] = []
        self.reports: list[dict] = []
        self.warmed = ""
        self.collected: list[bool] = []

    def step(self, now: int, late: float = 0.0, took: float = 0.0) -> None:
        self.collected.append(gc.isenabled())
        self.began.append(now)
        self.told.append((late, took))
        self.clock.pass_by(self.lasting.get(len(self.began), 0.001))

    def warm_up(self) -> None:
        self.warmed = threading.current_thread().name

    def report(self, more: dict) -> None:
        self.reports.append(more)

    def log(self, text: str) -> None:
        self.reports.append({"log": text})


def looped(lasting: dict[int, float], count: int = 10) -> tuple[Steps, Loop]:
    clock = SimulatedClock()
    steps = Steps(clock, lasting)
    loop = Loop(steps, clock)  # type: ignore[arg-type]
    loop.run(lambda: len(steps.began) >= count)
    return steps, loop


def test_deadlines_are_absolute_and_a_late_step_moves_none():
    steps, loop = looped({3: 0.019, 5: 0.020})
    assert np.diff(steps.began).tolist() == [PERIOD] * 9
    assert loop.punctuality.missed == 0 and steps.told[3] == (0.0, pytest.approx(0.019))


def test_missed_deadlines_are_counted_and_not_caught_up():
    steps, loop = looped({3: 0.021, 6: 0.065})
    assert [(b - steps.began[0]) // PERIOD for b in steps.began] == [0, 1, 2, 4, 5, 6, 10, 11, 12, 13]
    assert {(b - steps.began[0]) % PERIOD for b in steps.began} == {0}
    assert loop.punctuality.missed == 4
    assert loop.punctuality.summary()["missed_deadline_rate"] == pytest.approx(4 / 14)


def test_lateness_is_measured_from_the_deadline():
    steps, _ = looped({})
    assert steps.told[4] == (0.0, pytest.approx(0.001))
    clock = SimulatedClock()
    late = Steps(clock, {})
    sleep = clock.sleep_until
    clock.sleep_until = lambda deadline: sleep(deadline + 3_000_000)
    loop = Loop(late, clock)  # type: ignore[arg-type]
    loop.run(lambda: len(late.began) >= 5)
    assert late.told[-1][0] == pytest.approx(0.003 + 0.003, abs=0.0035)
    assert loop.punctuality.summary()["late_ms_p99"] >= 3.0


@pytest.mark.parametrize("on", [True, False])
def test_the_garbage_collector_is_off_inside_and_as_before_afterwards(on):
    was = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        steps, _ = looped({})
        assert not any(steps.collected) and gc.isenabled() is on
    finally:
        (gc.enable if was else gc.disable)()


def test_the_garbage_collector_is_on_again_after_a_loop_that_died():
    clock = SimulatedClock()
    steps = Steps(clock, {})
    steps.step = lambda *_: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        Loop(steps, clock).run()  # type: ignore[arg-type]
    assert gc.isenabled()


def test_reports_come_about_twice_a_second():
    steps, _ = looped({}, 100)
    assert len(steps.reports) == 4 and steps.reports[-1]["ticks"] == 100


def test_punctuality_counts_every_step_to_within_a_hundredth():
    kept, took = Punctuality(), np.random.default_rng(0).gamma(2.0, 0.002, 20_000)
    assert kept.summary()["tick_ms_p99"] == kept.summary()["late_ms_p99"] == 0.0
    for k, seconds in enumerate(took.tolist()):
        kept.add(seconds, 0.0, k == 5)
    found = kept.summary()
    for name, share in (("tick_ms_p50", 0.5), ("tick_ms_p99", 0.99)):
        exact = 1e3 * float(np.quantile(took, share, method="inverted_cdf"))
        assert exact <= found[name] <= 1.01 * exact, name
    assert found["ticks"] == 20_000 and found["tick_ms_max"] == 1e3 * took.max()
    assert found["late_ms_p99"] == 0.0 and found["missed_deadline_rate"] == pytest.approx(1 / 20_001)


@pytest.mark.parametrize("seconds", [0.0, 1e-7, 1e-6, 0.02, 1000.0])
def test_a_duration_of_any_length_is_counted(seconds):
    durations = Durations()
    durations.add(seconds)
    assert durations.quantile(0.5) == pytest.approx(min(seconds, 161.0), rel=0.01)
    assert durations.count == 1 and durations.largest == seconds


def test_a_thread_runs_the_loop_and_one_that_dies_is_known():
    clock, said = SteadyClock(), []
    steps = Steps(SimulatedClock(), {})
    steps.log = said.append  # type: ignore[method-assign]
    loop = Loop(steps, clock)  # type: ignore[arg-type]
    assert not loop.alive
    loop.start()
    assert steps.warmed == "control loop"
    time.sleep(0.1)
    assert loop.alive and threading.active_count() > 1
    steps.step = lambda *_: 1 / 0  # type: ignore[method-assign]
    loop._thread.join(2.0)
    assert not loop.alive and isinstance(loop.failure, ZeroDivisionError)
    assert len(said) == 1 and "ZeroDivisionError" in said[0]
    again = Loop(Steps(SimulatedClock(), {}), clock)  # type: ignore[arg-type]
    again.start()
    again.end()
    assert not again.alive and again.failure is None


def test_a_core_that_there_is_not_is_noted():
    said: list[str] = []
    steps = Steps(SimulatedClock(), {})
    steps.times, steps.log = Times(core=1023), said.append  # type: ignore[method-assign]
    loop = Loop(steps, SteadyClock())  # type: ignore[arg-type]
    loop.start()
    loop.end()
    assert loop.failure is None and any("core" in text or "real-time" in text for text in said)


# --- whole courses ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_courses_through_the_loop_end_disarmed_with_nothing_refused(course_runs):
    for result in course_runs.results:
        assert result["controller"]["state"] in ("disarmed", "emergency")
        assert result["loop"]["missed_deadline_rate"] == 0.0
    whole = [result for result in course_runs.results if result["finished"]]
    assert whole, "no policy takes the robot over the course"
    for result in whole:
        assert all(obstacle["gates_passed"] for obstacle in result["obstacles"].values())
        assert result["controller"]["refusals"] == {Code.OPERATOR: 1} and result["controller"]["code"] == Code.OPERATOR


@pytest.mark.slow
def test_a_course_through_the_loop_scores_as_without_it(course_runs):
    """The best of several, so that a touch of the board here or there does not count."""
    without = max(course_run.run(CourseRunOptions(policy, seed=seed))["score"] for policy, seed in course_runs.of)
    assert max(result["score"] for result in course_runs.results) == pytest.approx(without, abs=0.05)


@pytest.mark.slow
def test_a_robot_that_lies_stands_up_and_sets_out(monkeypatch):
    monkeypatch.setattr(simulation, "LONGEST_RUN", 6.0)
    result = simulation.onboard_in_simulation(OnboardOptions(lying=True), log=lambda text: None)
    assert result["controller"]["codes"][:2] == [Code.ARMED, Code.STOOD]
    assert result["obstacles"]["start table"]["gates_passed"] and result["latency_ms"]["p50"] >= 0.0
