"""What asks a program to end politely."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def polite() -> list[signal.Signals]:
    """SIGINT, SIGTERM and, unless it is ignored as under `nohup`, SIGHUP: its terminal or its connection is gone."""
    kinds = [signal.SIGINT, signal.SIGTERM]
    return kinds if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [*kinds, signal.SIGHUP]


@contextmanager
def held(*kinds: signal.Signals) -> Iterator[None]:
    """What comes here meanwhile, of `kinds` or of all that ask for a polite end, is heard by the end: a child that is
    started here is known to who is to end it before anything is raised. In the main thread; others hear no signals."""
    main, came, holds = threading.current_thread() is threading.main_thread(), list[int](), True
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    for kind in kinds or polite() if main else ():
        handler = signal.getsignal(kind)
        if callable(handler):
            handlers[kind] = handler

    def hold(number: int, frame: FrameType | None) -> None:
        if holds:
            came.append(number)
        else:  # one of them raised before this handler was taken away
            handlers[number](number, frame)

    try:
        for kind in handlers:
            signal.signal(kind, hold)
        yield
    finally:
        holds = False
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
        for number in came:
            signal.raise_signal(number)


@contextmanager
def unheard(*more: signal.Signals) -> Iterator[None]:
    """Programs that are started here hear neither Ctrl-C nor a terminal's end, which would end them in the middle of
    anything: who starts them ends them; nor any of `more`. What comes here meanwhile is `held`."""
    kinds = (signal.SIGINT, signal.SIGHUP, *more)
    with held(*kinds):  # another thread may take what this one does not, and the handler is called in this one then
        before = signal.pthread_sigmask(signal.SIG_BLOCK, kinds)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
