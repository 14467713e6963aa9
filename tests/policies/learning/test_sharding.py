"""Several devices and several hosts: virtual CPU devices and two processes on the loopback interface."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from policies.learning.hosts import Hosts
from policies.learning.options import TrainOptions
from policies.learning.ppo import Learner, PPOConfig, Rollout
from sim.errors import InputError

ROOT = Path(__file__).parents[3]
WORLDS, UNROLL, OBSERVATION, PRIVILEGED = 24, 4, 7, 9
ON_FOUR = """
import sys, numpy as np, jax
sys.path.insert(0, sys.argv[1])
from test_sharding import learned
assert jax.device_count() == 4, jax.devices()
flat, devices = learned()
assert devices == 4, devices
np.save(sys.argv[2], flat)
"""
TRAIN = """
import sys
from pathlib import Path
from policies.learning.options import TrainOptions
from policies.learning.train import Run, train
host, port, out = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
train(TrainOptions(
    "walk", worlds=24, steps=24 * 24 * 2, seed=1, out=out, coordinator=f"127.0.0.1:{port}", hosts=2, host=host,
))
"""


def learned() -> tuple[np.ndarray, int]:
    """All parameters after two updates on invented data, and the number of devices that took part."""
    learner = Learner(PPOConfig(worlds=WORLDS, unroll=UNROLL), OBSERVATION, PRIVILEGED, 12)
    state = learner.initial(0)
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal((WORLDS, *shape)).astype(np.float32)

    for _ in range(2):
        seen = {"state": draw(UNROLL, OBSERVATION), "privileged_state": draw(UNROLL, PRIVILEGED)}
        last = {"state": draw(1, OBSERVATION), "privileged_state": draw(1, PRIVILEGED)}
        fallen = (draw(UNROLL) > 1.5).astype(np.float32)
        action, zero = draw(UNROLL, 12), np.zeros((WORLDS, UNROLL), np.float32)
        rollout = Rollout(seen, action, -17 + draw(UNROLL), draw(UNROLL), fallen, zero, last)
        state, _ = learner.update(state, rollout)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)]), learner.mesh.size


def environment(devices: int = 1) -> dict[str, str]:
    flags = f"--xla_force_host_platform_device_count={devices}"
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}


def test_four_devices_learn_what_one_learns(tmp_path):
    file = tmp_path / "parameters.npy"
    words = [sys.executable, "-c", ON_FOUR, str(Path(__file__).parent), str(file)]
    done = subprocess.run(words, env=environment(4), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    one, devices = learned()
    fresh = Learner(PPOConfig(worlds=WORLDS, unroll=UNROLL), OBSERVATION, PRIVILEGED, 12).initial(0).params
    begun = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(fresh)])
    assert devices == 1 and np.abs(one - begun).max() > 1e-3
    np.testing.assert_allclose(np.load(file), one, atol=2e-4)  # Adam's first steps amplify rounding


def test_two_hosts_train_one_policy(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN, str(host), port, str(tmp_path)],
            env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for host in (0, 1)
    ]  # fmt: skip
    said = [process.communicate(timeout=400)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], "\n".join(text[-1500:] for text in said)
    from policies.learning import checkpoint

    folders = [checkpoint.latest(tmp_path / "checkpoints"), checkpoint.latest(tmp_path / "host_1" / "checkpoints")]
    (first, values), (second, others) = (checkpoint.load(folder) for folder in folders if folder is not None)
    assert values["steps"] == others["steps"] == 24 * 24 * 2
    learned_names = [name for name in first if name.startswith(("params", "normalizer", "optimizer"))]
    assert len(learned_names) > 20
    for name in learned_names:
        np.testing.assert_array_equal(first[name], second[name])
    assert first["env/task.phase"].shape == (12,)  # each has half of the worlds, and not the same half
    assert not np.array_equal(first["env/task.command"], second["env/task.command"])
    assert json.loads((tmp_path / "summary.json").read_text())["bundle"] == str(tmp_path / "walk.onnx")
    assert not (tmp_path / "host_1" / "walk.onnx").exists()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"count": 2, "index": 2, "coordinator": "a:1"}, "--host must be 0 to 1"),
        ({"count": 2, "coordinator": "nowhere"}, "NAME:PORT"),
        ({"count": 0}, "--host must be"),
    ],
)
def test_a_host_that_cannot_take_part_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Hosts(**wrong)


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ({"coordinator": "first:1234"}, False),
        ({"coordinator": "first:1234", "listen": "first"}, False),
        ({"coordinator": "first:1234", "host": 1, "listen": "0.0.0.0"}, False),
        ({"coordinator": "localhost:1234"}, True),
        ({"coordinator": "first:1234", "listen": "0.0.0.0"}, True),
        ({"coordinator": "first:1234", "host": 1}, True),
    ],
)
def test_host_0_listens_beyond_this_computer_only_where_it_is_asked_to(asked: dict, allowed: bool) -> None:
    refused = contextlib.nullcontext() if allowed else pytest.raises(InputError)
    with refused:
        TrainOptions("walk", hosts=2, **asked)


def test_host_0_is_bound_to_the_address_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict = {}
    monkeypatch.setattr("jax.distributed.initialize", lambda *where, **more: said.update(more))
    for listen, bound in (("127.0.0.1", "127.0.0.1:99"), ("::1", "[::1]:99")):
        Hosts("localhost:99", 2, 0, listen).join()
        assert said["coordinator_bind_address"] == bound


def test_worlds_that_do_not_split_are_refused():
    with pytest.raises(InputError, match="split over 2 hosts"):
        Hosts("a:1", 2, 0).share(25)
