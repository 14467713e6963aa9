"""Children that their parent ends do not hear what a terminal says to all of them."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sim.signals import held, polite, unheard

WAITS = "import sys, time; print('begun', flush=True); time.sleep(60)"


def test_a_program_that_is_started_unheard_hears_its_parent_alone():
    with unheard(), subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"begun\n"
        child.send_signal(signal.SIGINT)
        child.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert child.poll() is None
        child.terminate()
    assert child.returncode == -signal.SIGTERM


def _soon(heard: list[str]) -> list[str]:
    """What is heard within seconds: the kernel gives a process's signal to any thread, a library's too, which takes it
    when it next runs."""
    end = time.monotonic() + 30
    while not heard and time.monotonic() < end:
        time.sleep(0.01)
    return heard


def test_what_comes_meanwhile_is_heard_by_the_end():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append("end"))
    try:
        with unheard():
            os.kill(os.getpid(), signal.SIGINT)
        assert _soon(heard) == ["end"]
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_another_thread_takes_meanwhile_is_heard_by_the_end():
    heard, ends = [], threading.Event()
    other = threading.Thread(target=ends.wait)
    other.start()
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("end"))
    try:
        with unheard(signal.SIGTERM):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
            assert not heard
        assert _soon(heard) == ["end"]
    finally:
        signal.signal(signal.SIGTERM, before)
        ends.set()
        other.join()


def test_a_closed_terminal_asks_for_an_end_except_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert signal.SIGHUP in polite()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert polite() == [signal.SIGINT, signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_two_signals_that_come_meanwhile_leave_both_handlers_as_they_were():
    """The first one raises before the second one's handler is back, if it is not waited for."""
    kinds = (signal.SIGINT, signal.SIGTERM)

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = [signal.signal(kind, end) for kind in kinds]
    try:
        for first in kinds:
            for come in (kinds, kinds[::-1]):
                with pytest.raises(KeyboardInterrupt), held():
                    for kind in come:
                        signal.raise_signal(kind)
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(first)
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def test_a_signal_that_raises_while_handlers_are_given_back_takes_no_other_away(monkeypatch):
    """One that comes when the first of two handlers is back, which raises then."""
    kinds, raised, change = (signal.SIGINT, signal.SIGTERM), list[int](), signal.signal

    def end(number: int, _: object) -> None:
        raised.append(number)
        raise KeyboardInterrupt

    def changed(kind: int, handler: object) -> object:
        old = change(kind, handler)  # type: ignore[arg-type]
        if handler is end and kind == signal.SIGINT:
            signal.raise_signal(kind)
        return old

    before = [signal.signal(kind, end) for kind in kinds]
    try:
        monkeypatch.setattr(signal, "signal", changed)
        with pytest.raises(KeyboardInterrupt), held(*kinds):
            pass
        monkeypatch.undo()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert raised == [*kinds]
    finally:
        monkeypatch.undo()
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
