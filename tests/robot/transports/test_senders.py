"""Who sends: a second sender is told from one that was started anew, and a topic is claimed by one program."""

import pytest

from robot.loop.transport import NS
from robot.transports.senders import CONTESTED, REMEMBERED, SILENT, Claim, Heard, Senders, check_free
from sim.errors import InputError

FIRST, OTHER = b"first", b"other"
QUIET = round(2 * SILENT * NS)


def nobody() -> int:
    raise AssertionError("publishers are counted only where the middleware names nobody")


def test_who_sends_beside_another_is_second_and_not_for_ever() -> None:
    senders = Senders()
    assert senders.hear(FIRST, 0, nobody) is Heard.KNOWN and not senders.contested(0)
    assert senders.hear(OTHER, NS // 50, nobody) is Heard.SECOND
    assert senders.hear(FIRST, NS // 25, nobody) is Heard.KNOWN and senders.contested(NS // 25)
    assert not senders.contested(NS // 50 + round(CONTESTED * NS) + 1)


def test_who_begins_after_the_first_fell_silent_takes_its_place_until_that_returns() -> None:
    senders = Senders()
    senders.hear(FIRST, 0, nobody)
    assert senders.hear(OTHER, QUIET, nobody) is Heard.CHANGED and not senders.contested(QUIET)
    assert senders.hear(OTHER, QUIET + 1, nobody) is Heard.KNOWN
    assert senders.hear(FIRST, 3 * QUIET, nobody) is Heard.SECOND and senders.contested(3 * QUIET)


def test_on_a_topic_of_ones_own_everybody_else_is_second() -> None:
    senders = Senders(own=FIRST)
    assert senders.hear(OTHER, 0, nobody) is Heard.SECOND and senders.hear(FIRST, QUIET, nobody) is Heard.KNOWN
    assert senders.hear(OTHER, 9 * QUIET, nobody) is Heard.SECOND


def test_without_identities_publishers_are_counted() -> None:
    senders = Senders()
    assert senders.hear(None, 0, lambda: 1) is Heard.KNOWN
    assert senders.hear(None, 1, lambda: 2) is Heard.SECOND and senders.contested(1)


def test_any_number_of_senders_takes_bounded_memory() -> None:
    senders = Senders()
    for k in range(100):
        senders.hear(str(k).encode(), k * QUIET, nobody)
    assert len(senders._replaced) == REMEMBERED


def test_a_topic_has_one_program_a_domain() -> None:
    topic = "/test_senders/" + "x" * 200
    claim = Claim(101, topic)
    with pytest.raises(InputError):
        Claim(101, topic)
    with pytest.raises(InputError):
        check_free(101, ("/test_senders/other", topic))
    check_free(100, (topic,))
    claim.close()
    check_free(101, (topic,))
