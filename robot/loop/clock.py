"""Time for the control loop: the computer's steady clock, or one that a simulation moves; and durations, counted."""

import math
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

NS = 1_000_000_000


class Clock(Protocol):
    """Steady nanoseconds, never set back."""

    def now(self) -> int:
        """The time, ns."""
        ...

    def sleep_until(self, deadline: int) -> None:
        """Returns at `deadline` (ns) or as soon after it as can be."""
        ...


class SteadyClock:
    """`CLOCK_MONOTONIC`. Sleeps to shortly before a deadline and waits out the rest, where `spin` (s) says so."""

    def __init__(self, spin: float = 0.0) -> None:
        self._spin = round(spin * NS)

    def now(self) -> int:
        """The time, ns."""
        return time.monotonic_ns()

    def sleep_until(self, deadline: int) -> None:
        """See `Clock`."""
        left = deadline - self._spin - time.monotonic_ns()
        if left > 0:
            time.sleep(left / NS)
        while time.monotonic_ns() < deadline and self._spin:
            pass


class SimulatedClock:
    """Time that passes only while somebody sleeps: what happens until then (physics, sensors) is done meanwhile.

    Runs at any speed and gives the same run every time.
    """

    def __init__(self, start: int = NS) -> None:
        self._now = start
        self._events: list[tuple[int, int, Callable[[], int | None]]] = []
        self._count = 0

    def now(self) -> int:
        """The time, ns."""
        return self._now

    def at(self, when: int, event: Callable[[], int | None]) -> None:
        """Calls `event` at `when` (ns); if it returns a time, again then."""
        self._events.append((when, self._count, event))
        self._count += 1
        self._events.sort(key=lambda e: e[:2])

    def sleep_until(self, deadline: int) -> None:
        """Lets everything happen that is due up to `deadline`."""
        while self._events and self._events[0][0] <= deadline:
            when, _, event = self._events.pop(0)
            self._now = max(self._now, when)
            again = event()
            if again is not None:
                self.at(again, event)
        self._now = max(self._now, deadline)

    def pass_by(self, seconds: float) -> None:
        """Time that is spent without anything being noticed, as by a computation that takes long."""
        self.sleep_until(self._now + round(seconds * NS))


class Durations:
    """Many durations in constant memory: how many there were of each length, in bins that are 1 % apart."""

    LEAST, RATIO, BINS = 1e-6, 1.01, 1900
    """The first bin ends at 1 us, the last at 160 s."""

    def __init__(self) -> None:
        self._counts = np.full(self.BINS, 0, np.int64)  # written to, so that the memory is taken now
        self.largest = 0.0
        """s."""

    @property
    def count(self) -> int:
        """How many there were."""
        return int(self._counts.sum())

    def add(self, seconds: float) -> None:
        """One duration, s."""
        place = math.ceil(math.log(max(seconds, self.LEAST) / self.LEAST) / math.log(self.RATIO))
        self._counts[min(place, self.BINS - 1)] += 1
        self.largest = max(self.largest, seconds)

    def quantile(self, share: float) -> float:
        """The upper end of the bin that holds a quantile, s; 0 where there is nothing."""
        upto = self._counts.cumsum()
        place = int(np.searchsorted(upto, max(share * int(upto[-1]), 1)))
        return min(self.LEAST * self.RATIO**place, self.largest)

    def milliseconds(self) -> dict[str, float] | None:
        """`p50` and `p99`, ms; None where there is nothing."""
        return {"p50": 1e3 * self.quantile(0.5), "p99": 1e3 * self.quantile(0.99)} if self.count else None
