"""What was refused, by whom, with the value and the limit: counted always, logged once a second of each kind."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable

SECOND = 1_000_000_000


class Refusals:
    """Counts refusals and notes of each kind and passes the first of each second on to `log`."""

    def __init__(self, log: Callable[[str], None] | None = None) -> None:
        self.log = log
        self.counts: Counter[str] = Counter()
        self.last: dict[str, str] = {}
        """Kind -> the newest sentence."""
        self._said: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, now: int, kind: str, sentence: str) -> None:
        """Something was refused at `now` (ns)."""
        self._add(now, kind, sentence, "refused")

    def note(self, now: int, kind: str, sentence: str) -> None:
        """Something worth knowing that refuses nothing."""
        self._add(now, kind, sentence, "note")

    def _add(self, now: int, kind: str, sentence: str, word: str) -> None:
        with self._lock:
            self.counts[kind] += 1
            self.last[kind] = sentence
            said = self._said.get(kind)
            if said is not None and now - said < SECOND:
                return
            self._said[kind] = now
        if self.log is not None:
            with contextlib.suppress(Exception):  # a log that cannot be written stops no robot
                self.log(f"{word}: {sentence}")
