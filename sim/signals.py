"""What asks a program to end politely."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


def polite() -> list[signal.Signals]:
    """SIGINT, SIGTERM and, unless it is ignored as under `nohup`, SIGHUP: its terminal or its connection is gone."""
    kinds = [signal.SIGINT, signal.SIGTERM]
    return kinds if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [*kinds, signal.SIGHUP]


@contextmanager
def unheard() -> Iterator[None]:
    """Programs that are started here hear neither Ctrl-C nor a terminal's end, which would end them in the middle of
    anything: who starts them ends them. What comes here meanwhile is heard here, by the end at the latest."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
