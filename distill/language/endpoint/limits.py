"""What a paid or shared teacher may be asked: a rate on this side, and a budget that is never exceeded."""

import json
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distill.core.errors import DistillError
from distill.core.reading import check_regular, unique

log = logging.getLogger(__name__)

MINUTE_S = 60.0


MOST_TOKENS = 10**9
"""Of a request; more is no number that a server means."""


def possible(count: object) -> bool:
    """Whether that can be a request's number of tokens, of a prompt or an answer."""
    return type(count) is int and 0 <= count <= MOST_TOKENS


class Stopped(Exception):
    """Waiting was called off."""


class RateLimit:
    """At most so many requests and tokens within any 60 s; threads wait their turn."""

    def __init__(
        self,
        requests_per_minute: float = math.inf,
        tokens_per_minute: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float, threading.Event], bool] = lambda seconds, stop: stop.wait(seconds),
    ) -> None:
        """`sleep(seconds, stop)` returns early, and True, once `stop` is set."""
        self.requests, self.tokens, self.clock, self.sleep = requests_per_minute, tokens_per_minute, clock, sleep
        self._taken: deque[list[float]] = deque()
        """[time in s, tokens], oldest first."""
        self._paused_until = -math.inf
        self._lock = threading.Lock()

    def acquire(self, tokens: float, stop: threading.Event) -> list[float]:
        """Waits until one more request of about `tokens` may be sent. Raises `Stopped` once `stop` is set.

        A request of more tokens than a minute allows waits for an empty minute. Give what it returns to `settle`.
        """
        while not stop.is_set():
            with self._lock:
                now = self.clock()
                wait = self._wait(now, tokens)
                if wait <= 0:
                    ticket = [now, float(tokens)]
                    self._taken.append(ticket)
                    return ticket
            self.pause_here(wait, stop)
        raise Stopped

    def settle(self, ticket: list[float], tokens: float) -> None:
        """Corrects what a request was taken to need by what it did need."""
        with self._lock:
            ticket[1] = float(tokens)

    def pause(self, seconds: float) -> None:
        """No request of any thread for so long: the server asked for it."""
        with self._lock:
            self._paused_until = max(self._paused_until, self.clock() + seconds)

    def pause_here(self, seconds: float, stop: threading.Event) -> None:
        """Waits in this thread alone. Raises `Stopped` once `stop` is set."""
        if self.sleep(seconds, stop) or stop.is_set():
            raise Stopped

    def _wait(self, now: float, tokens: float) -> float:
        """Seconds until there is room, 0 or less where there is."""
        while self._taken and self._taken[0][0] <= now - MINUTE_S:
            self._taken.popleft()
        wait, used, count = self._paused_until - now, sum(t for _, t in self._taken), len(self._taken)
        for taken, spent in self._taken:
            if count + 1 <= max(1.0, self.requests) and (used + tokens <= self.tokens or not count):
                break
            wait = max(wait, taken + MINUTE_S - now)
            used, count = used - spent, count - 1
        return wait


@dataclass(frozen=True)
class Prices:
    """What tokens cost, in the provider's currency for a million of each."""

    prompt: float
    completion: float

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """In currency."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@dataclass
class Usage:
    """What was used so far; `money` is None without prices."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    money: float | None = None


class Ledger:
    """Counts tokens and money in a file of JSON lines that later runs go on with, and refuses what would be too much.

    Threads may share one; processes at the same time do not see what the others spend.

    A request is taken to cost its most until it is answered, so that requests under way at the same time cannot exceed
    the budget together.
    """

    def __init__(
        self, path: Path, prices: Prices | None = None, money: float = math.inf, tokens: float = math.inf
    ) -> None:
        """`money` and `tokens` are the budget of the whole file. Raises `DistillError` for money without prices,
        and for a path that is no regular file."""
        if prices is None and money < math.inf:
            raise DistillError("a budget in money needs the prices of prompt and completion tokens")
        self.path, self.prices, self.money, self.tokens = Path(path), prices, money, tokens
        self._reserved: dict[int, tuple[int, int]] = {}
        self._next = 0
        self._lock = threading.Condition()
        self._used = [0, 0, 0]
        """Requests, prompt tokens, completion tokens."""
        self._cut_off = False
        self._read()

    @property
    def usage(self) -> Usage:
        """Of this file as a whole, at today's prices."""
        with self._lock:
            requests, prompt, completion = self._used
        return Usage(requests, prompt, completion, self.prices.cost(prompt, completion) if self.prices else None)

    def reserve(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Sets aside what a request may cost at most; its number. Raises `DistillError` where the budget forbids it.

        Waits where it fits only once requests under way turn out cheaper than they might.
        """
        with self._lock:
            while True:
                under_way = [sum(values) for values in zip(*self._reserved.values(), strict=True)] or [0, 0]
                used, more = self._used[1:], [prompt_tokens, completion_tokens]
                if self._within([u + w + m for u, w, m in zip(used, under_way, more, strict=True)]):
                    break
                if not self._within([u + m for u, m in zip(used, more, strict=True)]):
                    raise DistillError(self._refusal(more))
                self._lock.wait()
            self._next += 1
            self._reserved[self._next] = prompt_tokens, completion_tokens
            return self._next

    def release(self, number: int) -> None:
        """The request was not answered."""
        with self._lock:
            self._reserved.pop(number, None)
            self._lock.notify_all()

    def settle(self, number: int, prompt_tokens: int, completion_tokens: int) -> None:
        """The request was answered, and took so much."""
        with self._lock:
            self._reserved.pop(number, None)
            self._add(prompt_tokens, completion_tokens)
            self._lock.notify_all()
            line = json.dumps({"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens})
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(("\n" if self._cut_off else "") + line + "\n")
            self._cut_off = False

    def _within(self, tokens: list[int]) -> bool:
        return sum(tokens) <= self.tokens and (self.prices is None or self.prices.cost(*tokens) <= self.money)

    def _refusal(self, more: list[int]) -> str:
        used = self._used[1:]
        if sum(used) + sum(more) > self.tokens:
            return (
                f"the budget of {self.tokens:g} tokens would be exceeded: {sum(used)} are used, "
                f"and the next request may take {sum(more)}"
            )
        assert self.prices is not None
        return (
            f"the budget of {self.money:g} would be exceeded: {self.prices.cost(*used):.6g} is spent, "
            f"and the next request may cost {self.prices.cost(*more):.6g}"
        )

    def _add(self, prompt_tokens: int, completion_tokens: int) -> None:
        for i, value in enumerate((1, prompt_tokens, completion_tokens)):
            self._used[i] += value

    def _read(self) -> None:
        if not os.path.lexists(self.path):
            return
        check_regular(self.path)  # a pipe would be waited for, also where it is appended to
        with self.path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            line = "\n"
            for number, line in enumerate(file, 1):
                try:
                    values = json.loads(line, object_pairs_hook=unique)
                    counts = [values[name] for name in ("prompt_tokens", "completion_tokens")]
                    if not all(possible(count) for count in counts):
                        raise ValueError("no numbers of tokens")
                    self._add(*counts)
                except (ValueError, KeyError, TypeError, RecursionError):
                    log.warning("line %d of %s is damaged and not counted", number, self.path)
        self._cut_off = not line.endswith("\n")
