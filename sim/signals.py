"""What asks a program to end politely."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def polite() -> list[signal.Signals]:
    """SIGINT, SIGTERM and, unless it is ignored as under `nohup`, SIGHUP: its terminal or its connection is gone."""
    kinds = [signal.SIGINT, signal.SIGTERM]
    return kinds if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [*kinds, signal.SIGHUP]


@contextmanager
def unheard(*more: signal.Signals) -> Iterator[None]:
    """Programs that are started here hear neither Ctrl-C nor a terminal's end, which would end them in the middle of
    anything: who starts them ends them; nor any of `more`. What comes here meanwhile is heard here, by the end at the
    latest."""
    kinds, came = (signal.SIGINT, signal.SIGHUP, *more), list[int]()
    main = threading.current_thread() is threading.main_thread()
    handlers = {kind: signal.getsignal(kind) for kind in kinds if main and callable(signal.getsignal(kind))}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, kinds)
    for kind in handlers:  # another thread may take what this one does not, and the handler is called in this one then
        signal.signal(kind, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in came:
            signal.raise_signal(number)
