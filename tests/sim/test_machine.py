"""This computer: whether something can run here at all."""

import resource

import pytest

from sim import machine
from sim.errors import InputError


def test_more_memory_than_there_is_is_refused_before_it_is_taken(monkeypatch):
    machine.need_memory(1.0, "a byte")
    with pytest.raises(InputError, match="a thing"):
        machine.need_memory(1e18, "a thing")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1 << 20, 1 << 20))
    assert machine.memory() == 1 << 20, "a process's own limit counts"
    with pytest.raises(InputError):
        machine.need_memory((1 << 20) + 1, "two things")


@pytest.mark.parametrize("flags", ["--xla_no_such_flag=3", "nowhere.txt"])
def test_flags_that_end_a_process_without_a_word_are_named(flags, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags)
    with pytest.raises(InputError) as refused:
        machine.check_xla()
    assert flags in str(refused.value) and "\n" not in str(refused.value)


def test_flags_that_xla_knows_are_taken(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    machine.check_xla()
