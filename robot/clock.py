"""Time for the control loop: the computer's steady clock, or one that a simulation moves."""

import time
from collections.abc import Callable
from typing import Protocol

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
