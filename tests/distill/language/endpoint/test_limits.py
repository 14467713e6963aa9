"""Rate limits by a clock of their own, a ledger that survives its process, and a cache of answers."""

import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.errors import DistillError
from distill.language.endpoint.answers import AnswerCache
from distill.language.endpoint.client import opened
from distill.language.endpoint.limits import Ledger, Prices, RateLimit, Stopped


class Clock:
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float, stop: threading.Event) -> bool:
        assert seconds > 0
        self.now += seconds
        return stop.is_set()


def limited(clock: Clock, **values: float) -> RateLimit:
    return RateLimit(**values, clock=clock, sleep=clock.sleep)


@given(st.integers(1, 5), st.integers(10, 60), st.lists(st.tuples(st.integers(1, 30), st.floats(0, 40)), max_size=25))
@settings(max_examples=60, deadline=None)
def test_no_minute_has_more_than_is_allowed(requests, tokens, asked):
    clock, stop = Clock(), threading.Event()
    rate = limited(clock, requests_per_minute=requests, tokens_per_minute=tokens)
    sent: list[tuple[float, int]] = []
    for size, pause in asked:
        clock.now += pause
        rate.acquire(size, stop)
        sent.append((clock.now, size))
    for start, _ in sent:
        window = [size for at, size in sent if start <= at < start + 60]
        assert len(window) <= requests
        assert sum(window) <= tokens or len(window) == 1  # one that is too large for any minute goes alone


def test_it_waits_no_longer_than_it_must_and_settles_on_what_was_used():
    clock, stop = Clock(), threading.Event()
    rate = limited(clock, tokens_per_minute=100)
    ticket = rate.acquire(80, stop)
    clock.now = 10.0
    rate.settle(ticket, 20)
    rate.acquire(80, stop)
    assert clock.now == 10.0
    rate.acquire(20, stop)
    assert clock.now == 60.0  # the first left the minute
    rate.pause(300)
    rate.acquire(1, stop)
    assert clock.now == 360.0


def test_waiting_can_be_called_off():
    clock, stop = Clock(), threading.Event()
    rate = limited(clock, requests_per_minute=1)
    rate.acquire(1, stop)
    stop.set()
    with pytest.raises(Stopped):
        rate.acquire(1, stop)


def test_a_ledger_goes_on_in_the_next_process_even_after_a_cut_off_line(tmp_path, caplog):
    path, prices = tmp_path / "usage.jsonl", Prices(2.0, 10.0)
    ledger = Ledger(path, prices)
    ledger.settle(ledger.reserve(100, 50), 10, 5)
    assert ledger.usage.money == pytest.approx(70e-6)
    with path.open("a") as file:
        file.write('{"prompt_tok')
    again = Ledger(path, prices)
    assert again.usage == ledger.usage and "line 2" in caplog.text
    again.settle(again.reserve(1, 1), 1, 1)
    assert (
        Ledger(path).usage.requests == 2 and Ledger(path).usage.prompt_tokens == 11 and Ledger(path).usage.money is None
    )


DAMAGED = ["-5", "true", '"7"', "1e400", "NaN", "9" * 4000, "[" * 100_000, "2.5", '7, "prompt_tokens": 0']


@pytest.mark.parametrize("count", DAMAGED, ids=lambda count: count[:9])
def test_what_is_no_number_of_tokens_is_not_taken_off_the_budget(count, tmp_path, caplog):
    path = tmp_path / "usage.jsonl"
    sound = '{"prompt_tokens": 3, "completion_tokens": 2}'
    changed = f'{{"completion_tokens": 1, "prompt_tokens": {count}}}'
    path.write_text(f"{sound}\n{changed}\n")
    usage = Ledger(path, Prices(2.0, 10.0), money=1.0).usage
    assert (usage.requests, usage.prompt_tokens, usage.completion_tokens) == (1, 3, 2) and "line 2" in caplog.text


@pytest.mark.parametrize("how", ["pipe", "device", "folder"])
def test_a_ledger_that_is_no_file_is_refused_at_once(how, tmp_path, spoil):
    spoil(tmp_path / "usage.jsonl", how)
    with pytest.raises(DistillError, match="no regular file"):
        Ledger(tmp_path / "usage.jsonl")


def test_a_servers_impossible_number_of_tokens_is_the_most_that_was_asked_for():
    body = b'{"usage": {"prompt_tokens": %s, "completion_tokens": 4}}' % (b"9" * 4000)
    assert opened(body, (10, 20))[2] == [10, 4]


def test_requests_under_way_cannot_exceed_the_budget_together(tmp_path):
    ledger = Ledger(tmp_path / "u", tokens=100)
    first = ledger.reserve(30, 30)
    done = threading.Event()

    def second() -> None:
        ledger.reserve(20, 40)  # fits only once the first turns out cheaper
        done.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not done.wait(0.05)
    ledger.settle(first, 10, 10)
    assert done.wait(5)
    thread.join()
    with pytest.raises(DistillError, match="budget of 100 tokens would be exceeded: 20 are used, .* may take 90"):
        ledger.reserve(50, 40)
    with pytest.raises(DistillError, match="needs the prices"):
        Ledger(tmp_path / "u", money=1.0)


def test_a_cache_returns_what_was_put_and_nothing_else(tmp_path):
    cache = AnswerCache(tmp_path)
    request = {"b": [1, 2.5, "ä"], "a": None}
    assert cache.get(request) is None
    path = cache.put(request, {"text": "sitz\n", "n": 3})
    assert cache.get({"a": None, "b": [1, 2.5, "ä"]}) == {"text": "sitz\n", "n": 3}  # order is no difference
    assert cache.get({"b": [1, 2.5, "a"], "a": None}) is None and not list(tmp_path.rglob("*.part"))
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {"answer": {"text": "platz", "n": 3}}))
    assert cache.get(request) is None
    cache.put(request, {"text": "new"})
    assert cache.get(request) == {"text": "new"}
