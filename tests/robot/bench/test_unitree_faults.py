"""Faults on the way to a robot of Unitree's: each safe, and a judge that would see one that is not."""

from dataclasses import replace

import numpy as np
import pytest

from policies.skills.library import Skills, load_skills
from robot.bench import unitree_faults as module
from robot.bench.unitree_faults import EMERGENCY, FAULTS, RUNNING, UnitreeFault, UnitreeRig, try_beginnings, try_fault
from robot.transports.unitree import transport
from robot.transports.unitree.layout import Packed
from robot.transports.unitree.line import Line
from robot.transports.unitree.messages import LOW_STATE, LOW_STATE_MESSAGE, UNKNOWN_API

BY_NAME = {fault.name: fault for fault in FAULTS}
TRIED = (
    "three states with a wrong checksum", "motors of left and right legs changed over",
    "the world stands still for 25 ms", "knee speed reversed in a world that stands still for 25 ms now and then",
)  # fmt: skip


@pytest.fixture(scope="module")
def skills() -> Skills:
    return load_skills("specialists", module.ROBOT)


@pytest.mark.parametrize("name", TRIED)
def test_a_fault_is_safe(name, skills, monkeypatch):
    """The rest of the table is the bench's own: `python -m robot.bench.unitree_faults`."""
    monkeypatch.setattr(module, "WATCHED", 0.6)
    result = try_fault(BY_NAME[name], skills)
    assert result["safe"], result


def test_a_loop_that_would_go_on_is_seen(skills, monkeypatch):
    """A fault that nobody notices is not safe, nor a command that holds an angle after the loop has let go."""
    monkeypatch.setattr(module, "WATCHED", 0.3)
    unnoticed = try_fault(UnitreeFault("nothing", lambda rig: None, EMERGENCY), skills)
    assert not unnoticed["safe"] and unnoticed["state"] == RUNNING
    press = BY_NAME["the remote asks to damp"]

    def and_stiff(rig: UnitreeRig) -> None:
        press.inject(rig)
        rig.every(20_000_000, lambda: rig.stiff.append(rig.clock.now()))

    stiff = try_fault(replace(press, inject=and_stiff), skills)
    assert stiff["state"] == EMERGENCY and not stiff["safe"]


def test_without_the_robots_count_of_time_a_pause_lets_go_of_it(skills, monkeypatch):
    """So the pause among the faults above can be seen."""
    monkeypatch.setattr(module, "WATCHED", 0.6)
    monkeypatch.setattr(transport, "TICK", 0)
    assert try_fault(BY_NAME["the world stands still for 25 ms"], skills)["state"] == EMERGENCY


def test_the_robots_own_mode_is_let_go_of_or_nothing_is_sent(skills, monkeypatch):
    monkeypatch.setattr(transport, "RELEASE_PAUSE", 0.1)
    assert all(row["safe"] for row in try_beginnings(skills))


def test_each_fault_has_a_name_of_its_own():
    assert len(BY_NAME) == len(FAULTS)


def test_a_line_delivers_copies_to_the_others_and_loses_what_is_taken_off():
    line, seen = Line(lambda: 5), []
    one, two = line.end("one"), line.end("two")
    for end, others in ((one, True), (two, True), (two, False)):
        end.inbox(LOW_STATE, LOW_STATE_MESSAGE, seen.append, others_only=others).start()
    one.inbox(LOW_STATE, LOW_STATE_MESSAGE, lambda received: pytest.fail("not begun"))
    message = Packed(LOW_STATE_MESSAGE)
    one.outbox(LOW_STATE, LOW_STATE_MESSAGE).send(message)
    assert len(seen) == 2 and {received.sender for received in seen} == {b"one"} and seen[0].sent == 5
    seen[0].message["tick"] = 7
    assert not message["tick"].any()
    line.tampers[LOW_STATE] = lambda message: None
    one.outbox(LOW_STATE, LOW_STATE_MESSAGE).send(message)
    assert len(seen) == 2
    assert two.client("sport").call(1)[0] != 0
    server = one.server("sport", {1: lambda asked: (0, {"it": asked["is"]})})
    assert two.client("sport").call(1, {"is": 3}) == (0, {"it": 3})
    assert two.client("sport").call(2)[0] == UNKNOWN_API and server.calls == [1, 2]
    np.testing.assert_array_equal(seen[1].message["tick"], message["tick"])
