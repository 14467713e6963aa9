"""The exporter: the file computes what the JAX network computes, normaliser and all; equal input, equal bytes."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from policies.bundle.reader import Bundle, Policy
from policies.learning import checkpoint
from policies.learning import export as exporter
from policies.learning.networks import NetworkConfig
from policies.learning.options import ExportOptions, TrainOptions
from policies.learning.ppo import Learner, LearnerState, PPOConfig
from policies.learning.train import Run
from sim import observation as obs
from sim.envs.batched import BatchedEnv
from sim.errors import InputError
from sim.observation import Layout, Sensors
from sim.robots.gaits import Gait
from sim.tasks.events import Pushes
from sim.tasks.randomization import SensorNoise, nominal
from sim.tasks.task import Task


def export(checkpoint: Path, file: Path, force: bool = False) -> dict[str, Any]:
    return exporter.export(ExportOptions(checkpoint, file, force=force))


LAYOUT = Layout(12, frames=(0,), clock=False)
SIZES = (LAYOUT.size, LAYOUT.size + 3, 12)


def stirred(state: LearnerState, seed: int) -> LearnerState:
    """The state with weights and statistics as uneven as after training: fresh ones give actions near zero."""
    rng = np.random.default_rng(seed)

    def moved(p: Any) -> np.ndarray:
        size = 0.8 / np.sqrt(p.shape[0]) if p.ndim == 2 else 0.1
        return np.asarray(p + size * rng.standard_normal(p.shape), np.float32)

    params = jax.tree.map(moved, state.params)
    statistics: Any = state.normalizer
    mean = {k: rng.normal(0, 1, v.shape).astype(np.float32) for k, v in statistics.mean.items()}
    std = {k: rng.uniform(0.05, 3, v.shape).astype(np.float32) for k, v in statistics.std.items()}
    return state._replace(params=params, normalizer=statistics.replace(mean=mean, std=std))


@cache
def fresh() -> LearnerState:
    """A small learner's parameters, the same tree for every activation."""
    return Learner(PPOConfig(networks=NetworkConfig(hidden=(16, 8), critic_hidden=(8,))), *SIZES).initial(0)


def write_checkpoint(folder: Path, activation: str = "elu", seed: int = 0, **changes: Any) -> Path:
    """A checkpoint of a small learner, as `Run.save` leaves it, without an environment."""
    state = stirred(fresh(), seed)
    values = {
        "skill": "walk", "robot": "barkour_v0", "layout": LAYOUT.to_dict(), "gait": Gait().to_dict(),
        "network": {"hidden": [16, 8], "critic_hidden": [8], "activation": activation, "initial_std": 0.4},
        "sizes": list(SIZES), "command": "barkour train walk --seed 0", "seed": seed, "commit": "abc", "steps": 7,
        "command_ranges": {"forward": [-1.6, 2.1], "sideways": [-0.9, 0.9], "yaw": [-1.7, 1.7]},
    }  # fmt: skip
    arrays = checkpoint.flatten(state.params, "params") | checkpoint.flatten(state.normalizer, "normalizer")
    return checkpoint.save(folder, 7, arrays, {k: v for k, v in {**values, **changes}.items() if v is not None})


ACTIVATIONS = {
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "swish": lambda x: x / (1 + np.exp(-x)),
}


def by_hand(path: Path, activation: str, observation: np.ndarray) -> np.ndarray:
    """The deterministic action in float64, from the checkpoint's arrays alone."""
    arrays, _ = checkpoint.load(path)
    found = {name: array.astype(float) for name, array in arrays.items()}

    def the(*words: str) -> np.ndarray:
        names = [name for name in found if all(word in name for word in words)]
        assert len(names) == 1, (words, names)
        return found[names[0]]

    x = (observation - the("normalizer", "mean", "'state'")) / the("normalizer", "std", "'state'")
    for layer in ("hidden_0", "hidden_1"):
        kernel, bias = the("policy", layer, "kernel"), the("policy", layer, "bias")
        x = ACTIVATIONS[activation](x @ kernel + bias)
    return x @ the("policy", "Dense_0", "kernel") + the("policy", "Dense_0", "bias")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("small"))


def inputs(count: int = 300, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (count, LAYOUT.size)).astype(np.float32)


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_the_file_computes_what_the_checkpoint_says_and_what_jax_computes(tmp_path, activation):
    path = write_checkpoint(tmp_path / "checkpoints", activation)
    report = export(tmp_path, tmp_path / "policy.onnx")
    assert report["parity"] <= 1e-5
    rows = inputs()
    action = Bundle.load(tmp_path / "policy.onnx")(rows)
    np.testing.assert_allclose(action, by_hand(path, activation, rows), atol=2e-5)
    assert action.std(0).min() > 0.1  # a network that says something


def test_the_graph_is_plain_onnx_and_holds_the_normaliser(small, tmp_path):
    """The reference implementation of ONNX, from the raw observation, without our loader."""
    export(small, tmp_path / "policy.onnx")
    model = onnx.load(tmp_path / "policy.onnx")
    onnx.checker.check_model(model, full_check=True)
    rows = inputs(20)
    (action,) = ReferenceEvaluator(model).run(None, {"observation": rows})
    np.testing.assert_allclose(action, by_hand(small, "elu", rows), atol=2e-5)
    arrays, _ = checkpoint.load(small)
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for name in ("mean", "std"):
        (key,) = [k for k in arrays if k.startswith("normalizer") and name in k and "'state'" in k]
        np.testing.assert_array_equal(weights[name], arrays[key])
        said = Bundle.load(tmp_path / "policy.onnx").metadata.normalizer[name]
        np.testing.assert_array_equal(np.asarray(said, np.float32), arrays[key])  # full precision in the text too


def test_only_the_normaliser_differs_where_only_the_statistics_differ(small, tmp_path):
    arrays, values = checkpoint.load(small)
    (mean,) = [k for k in arrays if k.startswith("normalizer") and "mean" in k and "'state'" in k]
    shift = np.random.default_rng(2).normal(0, 1, LAYOUT.size).astype(np.float32)
    moved = checkpoint.save(tmp_path / "moved", 7, {**arrays, mean: arrays[mean] + shift}, values)
    for path, name in ((small, "a"), (moved, "b")):
        export(path, tmp_path / f"{name}.onnx")
    a, b = (Bundle.load(tmp_path / f"{name}.onnx") for name in "ab")
    np.testing.assert_allclose(b(inputs() + shift), a(inputs()), atol=1e-4)
    assert np.abs(b(inputs()) - a(inputs())).max() > 0.01


def test_golden_vectors_are_what_jax_computes_and_cover_the_seen_range(small, tmp_path):
    export(small, tmp_path / "policy.onnx")
    golden = Bundle.load(tmp_path / "policy.onnx").metadata.golden
    rows = np.asarray(golden["observation"])
    assert rows.shape == (16, LAYOUT.size)
    np.testing.assert_allclose(np.asarray(golden["action"]), by_hand(small, "elu", rows), atol=2e-5)
    arrays, _ = checkpoint.load(small)
    (std,) = [k for k in arrays if k.startswith("normalizer") and "std" in k and "'state'" in k]
    assert (rows.std(0) / arrays[std]).min() > 0.3  # every input moves


# --- the file ---------------------------------------------------------------------------------------------------------


def test_exporting_twice_gives_equal_bytes_and_another_policy_other_bytes(small, tmp_path):
    for name in "ab":
        export(small, tmp_path / f"{name}.onnx")
    export(write_checkpoint(tmp_path / "other", seed=1), tmp_path / "c.onnx")
    a, b, c = ((tmp_path / f"{name}.onnx").read_bytes() for name in "abc")
    assert a == b != c
    assert sorted(p.suffix for p in tmp_path.glob("*") if p.is_file()) == [".onnx"] * 3  # nothing else is left


def test_the_bundle_says_where_it_came_from(small, tmp_path):
    report = export(small, tmp_path / "deep" / "policy.onnx")
    assert json.loads(json.dumps(report.to_dict())) == dict(report)
    made = Bundle.load(tmp_path / "deep" / "policy.onnx").metadata
    assert made.provenance == {"command": "barkour train walk --seed 0", "seed": 0, "commit": "abc", "steps": 7}
    assert made.skill == "walk" and made.command_ranges["forward"] == [-1.6, 2.1]
    assert made.kp == [35.0] * 12 and made.control_period == 0.02 and made.joint_names[3] == "abduction_hind_left"


def test_an_existing_file_is_replaced_only_by_force(small, tmp_path):
    file = tmp_path / "policy.onnx"
    file.write_text("precious")
    with pytest.raises(InputError, match="exists: add --force"):
        export(small, file)
    assert file.read_text() == "precious"
    export(small, file, force=True)
    Bundle.load(file)


def test_a_file_that_is_made_while_another_is_written_is_kept(small, tmp_path, monkeypatch):
    file = tmp_path / "policy.onnx"

    def write(self: Path, content: bytes) -> None:
        file.write_text("precious")
        with self.open("wb") as stream:
            stream.write(content)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(InputError, match="exists: add --force"):
        export(small, file)
    assert file.read_text() == "precious" and list(tmp_path.iterdir()) == [file]
    with pytest.raises(InputError, match="cannot write .*: (File exists|Not a directory)"):
        export(small, file / "below.onnx")


def test_a_run_folder_its_checkpoints_and_a_single_checkpoint_export_alike(tmp_path):
    older = write_checkpoint(tmp_path / "run" / "checkpoints", seed=1)
    older.rename(older.with_name("step_000000000003"))
    newest = write_checkpoint(tmp_path / "run" / "checkpoints", seed=2)
    for i, path in enumerate((tmp_path / "run", newest.parent, newest)):
        export(path, tmp_path / f"{i}.onnx")
    assert len({(tmp_path / f"{i}.onnx").read_bytes() for i in range(3)}) == 1


def test_a_bundle_is_written_anew_with_another_step_of_its_targets(tmp_path):
    from distill.locomotion.export import export as any_export

    first, slow, again = (tmp_path / f"{name}.onnx" for name in ("first", "slow", "again"))
    export(write_checkpoint(tmp_path), first)
    any_export(ExportOptions(first, slow, target_step=0.5))
    one, two = Bundle.load(first), Bundle.load(slow)
    assert (one.metadata.target_step, two.metadata.target_step) == (None, 0.5)
    rows = np.random.default_rng(0).normal(size=(4, one.layout.size)).astype(np.float32)
    np.testing.assert_array_equal(one(rows), two(rows))
    assert two.metadata.provenance["formerly"] == hashlib.sha256(first.read_bytes()).hexdigest()
    any_export(ExportOptions(slow, again))
    assert Bundle.load(again).metadata.target_step == 0.5
    any_export(ExportOptions(slow, slow, target_step=0.0, force=True))
    assert Bundle.load(slow).metadata.target_step is None
    with pytest.raises(InputError, match="add --force"):
        any_export(ExportOptions(first, again, target_step=0.5))
    said = any_export(ExportOptions(tmp_path, tmp_path / "run.onnx", target_step=0.5)).to_dict()
    assert said["target_step"] == 0.5 and said["bytes"] == (tmp_path / "run.onnx").stat().st_size
    assert Bundle.load(tmp_path / "run.onnx").metadata.target_step == 0.5
    with pytest.raises(InputError, match="no policy file"):
        any_export(ExportOptions(tmp_path / "none.onnx", tmp_path / "x.onnx"))


# --- what is refused --------------------------------------------------------------------------------------------------


def refusal(path: Path, file: Path) -> str:
    """The one line with which an export is refused, leaving no file."""
    with pytest.raises(InputError) as caught:
        export(path, file)
    assert "\n" not in str(caught.value)
    assert not file.exists()
    return str(caught.value)


def test_folders_without_a_checkpoint_are_refused(tmp_path):
    assert "is not a checkpoint" in refusal(tmp_path, tmp_path / "policy.onnx")
    assert "is not a checkpoint" in refusal(tmp_path / "missing", tmp_path / "policy.onnx")


@pytest.mark.parametrize("name, keep", [(checkpoint.ARRAYS, 0), (checkpoint.ARRAYS, 500), (checkpoint.VALUES, 40)])
def test_cut_off_checkpoints_are_refused(tmp_path, name, keep):
    path = write_checkpoint(tmp_path)
    (path / name).write_bytes((path / name).read_bytes()[:keep])
    assert "cannot be read" in refusal(path, tmp_path / "policy.onnx")


@pytest.mark.parametrize("key", ["network", "sizes", "skill", "robot", "layout", "gait", "command_ranges"])
def test_checkpoints_that_lack_a_description_are_refused(tmp_path, key):
    message = refusal(write_checkpoint(tmp_path, **{key: None}), tmp_path / "policy.onnx")
    assert key in message


@pytest.mark.parametrize(
    "changes",
    [
        {"robot": "spot"},
        {"layout": Layout(12, frames=(0, 1)).to_dict()},
        {"sizes": [LAYOUT.size + 1, LAYOUT.size + 3, 12]},
        {"network": {"hidden": [16, 8], "critic_hidden": [8], "activation": "gelu", "initial_std": 0.4}},
        {"network": {"hidden": [16], "critic_hidden": [8], "activation": "elu", "initial_std": 0.4}},
        {"network": {"depth": 3}},
    ],
    ids=["robot", "layout", "sizes", "activation", "hidden", "keys"],
)
def test_checkpoints_of_something_else_are_refused(tmp_path, changes):
    refusal(write_checkpoint(tmp_path, **changes), tmp_path / "policy.onnx")


def test_a_policy_with_broken_weights_is_refused(tmp_path):
    path = write_checkpoint(tmp_path)
    arrays, values = checkpoint.load(path)
    (name,) = [k for k in arrays if "policy" in k and "hidden_1" in k and "bias" in k]
    arrays[name][2] = np.nan
    refusal(checkpoint.save(tmp_path / "broken", 7, arrays, values), tmp_path / "policy.onnx")


def test_a_file_that_cannot_be_written_is_refused(small, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "cannot write" in refusal(small, tmp_path / "file" / "policy.onnx")


def test_an_exported_bundle_cut_off_anywhere_is_refused(small, tmp_path):
    export(small, tmp_path / "policy.onnx")
    content = (tmp_path / "policy.onnx").read_bytes()
    for keep in range(0, len(content), len(content) // 40):
        (tmp_path / "cut.onnx").write_bytes(content[:keep])
        with pytest.raises(InputError) as caught:
            Bundle.load(tmp_path / "cut.onnx")
        assert "\n" not in str(caught.value)


# --- training and running are the same policy -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Run]:
    """The checkpoint that a training run of six worlds leaves before its first iteration, with a stirred network."""
    folder = tmp_path_factory.mktemp("run")
    run = Run(TrainOptions("walk", worlds=6, out=folder, seed=3, threads=1))
    run.state = stirred(run.state, 4)
    run.save()
    return folder, run


def test_a_training_run_exports_to_its_own_network(trained, tmp_path):
    folder, run = trained
    report = export(folder, tmp_path / "walk.onnx")
    assert report["parity"] <= 1e-5
    made = Bundle.load(tmp_path / "walk.onnx")
    assert made.layout == run.task.layout and made.gait == run.task.gait
    assert made.metadata.provenance["seed"] == 3 and made.metadata.provenance["worlds"] == 6
    observation = run.env.observe()[0]
    np.testing.assert_allclose(made(observation), run.learner.mean_action(run.state, observation), atol=2e-5)


def test_a_running_policy_acts_as_the_training_network_does_in_the_training_environment(trained, tmp_path):
    """Sensors, command and ground go in beside the environment's own observation: the same actions and targets come
    out for two seconds, over command changes, falls and new episodes."""
    folder, run = trained
    export(folder, tmp_path / "walk.onnx")
    task = Task(noise=SensorNoise(0, 0, 0, 0, 0), pushes=Pushes(speed=0.0))
    env = BatchedEnv(task, 6, 5, ranges=nominal(task.robot), threads=1)
    env.state = env.state._replace(command_life=np.array([5, 9, 20, 50, 80, 200], np.float32))
    policy = Policy(Bundle.load(tmp_path / "walk.onnx"), 6)
    act = jax.jit(lambda observation: run.learner.mean_action(run.state, observation))
    observation, ended, commands = env.observe()[0], 0, []
    for _ in range(100):
        reading, state = env.physics.read(), env.state
        sensors = Sensors(reading.qpos[:, 3:7], reading.qvel[:, 3:6], reading.qpos[:, 7:], reading.qvel[:, 6:])
        yaw = obs.yaw_of(np, sensors.orientation)
        heights = policy.heights_at(task.ground.land.heights.height, reading.qpos[:, :2], reading.qpos[:, 2], yaw)
        targets = policy.step(sensors, state.command, heights)
        action = np.asarray(act(observation))
        np.testing.assert_allclose(policy.last_action, np.clip(action, -4, 4), atol=1e-4)
        np.testing.assert_allclose(targets, task.targets(np, state, action), atol=1e-4)
        np.testing.assert_allclose(policy.phase, state.phase, atol=1e-5)
        out = env.step(action)
        observation, done = out.observation, (out.fallen + out.truncated) > 0
        policy.reset(done)
        ended += int(done.sum())
        commands.append(state.command)
    assert ended > 0 and len(np.unique(np.concatenate(commands), axis=0)) > 6
