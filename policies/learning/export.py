"""From a training checkpoint to a policy bundle: actor's graph, normaliser and metadata in one ONNX file."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from policies.bundle.reader import SCHEMA, Bundle, Metadata, robot_fields
from policies.bundle.writer import GOLDEN_COUNT, write_bundle
from policies.learning import checkpoint
from policies.learning.networks import NetworkConfig
from policies.learning.options import ExportOptions
from policies.learning.ppo import Learner, LearnerState, PPOConfig
from policies.learning.results import Exported
from sim.errors import InputError
from sim.machine import check_xla
from sim.robots.description import robot_by_name
from sim.tasks.task import Task

PROVENANCE = ("command", "seed", "commit", "steps", "worlds", "backend", "seconds")


def restore_actor(path: Path) -> tuple[Learner, LearnerState, dict[str, Any]]:
    """The learner, its parameters and the description of a checkpoint (or of a run folder's newest one)."""
    found = checkpoint.latest(path / "checkpoints") or checkpoint.latest(path) or path
    arrays, values = checkpoint.load(found)
    try:
        network: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["network"].items()}
        learner = Learner(PPOConfig(networks=NetworkConfig(**network)), *values["sizes"])
    except (KeyError, TypeError) as error:
        raise InputError(f"checkpoint {found} lacks what an export needs: {error}") from error
    for key in ("skill", "robot", "layout", "gait", "command_ranges"):
        if key not in values:
            raise InputError(f"checkpoint {found} lacks what an export needs: '{key}'")
    state = learner.initial(0)
    fields = {name: checkpoint.unflatten(getattr(state, name), arrays, name) for name in ("params", "normalizer")}
    return learner, state._replace(**fields), values


def _graph(layers: list[tuple[np.ndarray, np.ndarray]], activation: str, mean: np.ndarray, std: np.ndarray) -> Any:
    """(x - mean) / std, then dense layers with `activation` between them."""
    nodes, weights = [], []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    nodes.append(helper.make_node("Sub", ["observation", constant("mean", mean)], ["centered"]))
    nodes.append(helper.make_node("Div", ["centered", constant("std", std)], ["hidden_0"]))
    for i, (kernel, bias) in enumerate(layers):
        last = i == len(layers) - 1
        inputs = [f"hidden_{i}", constant(f"kernel_{i}", kernel), constant(f"bias_{i}", bias)]
        nodes.append(helper.make_node("Gemm", inputs, ["action" if last else f"dense_{i}"]))
        if last:
            break
        if activation == "swish":
            nodes.append(helper.make_node("Sigmoid", [f"dense_{i}"], [f"gate_{i}"]))
            nodes.append(helper.make_node("Mul", [f"dense_{i}", f"gate_{i}"], [f"hidden_{i + 1}"]))
        else:
            operator = {"elu": "Elu", "relu": "Relu", "tanh": "Tanh"}[activation]
            nodes.append(helper.make_node(operator, [f"dense_{i}"], [f"hidden_{i + 1}"]))
    inputs = [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["batch", len(mean)])]
    outputs = [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["batch", layers[-1][1].shape[0]])]
    return helper.make_graph(nodes, "policy", inputs, outputs, weights)


def _layers(params: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernels and biases of Brax's actor in order: the MLP, then the mean's layer."""
    tree = params["params"]
    mlp = tree["MLP_0"]
    names = sorted(mlp, key=lambda name: int(name.rsplit("_", 1)[1]))
    return [(np.asarray(p["kernel"]), np.asarray(p["bias"])) for p in [*(mlp[n] for n in names), tree["Dense_0"]]]


def describe(skill: str, task: Task, learner: Learner) -> dict[str, Any]:
    """What a bundle and a checkpoint say about the task and the network of their policy, JSON-ready."""
    return task_fields(skill, task) | {"network": asdict(learner.config.networks), "sizes": list(learner.sizes)}


def task_fields(skill: str, task: Task) -> dict[str, Any]:
    """What a bundle says about the task of its policy, JSON-ready."""
    return {
        "skill": skill,
        "robot": task.robot.name,
        "layout": task.layout.to_dict(),
        "gait": task.gait.to_dict(),
        "command_ranges": {name: list(getattr(task.commands, name)) for name in ("forward", "sideways", "yaw")},
    }


def export(options: ExportOptions) -> Exported:
    """Exports the deterministic policy of a checkpoint, or of a run folder's newest one; an existing bundle is replaced
    only with `force`.

    Returns:
      As `write_policy`.

    Raises:
      InputError: no such checkpoint, or `file` exists.
    """
    if options.file.exists() and not options.force:
        raise InputError(f"{options.file} exists: add --force to replace it")
    check_xla()
    learner, state, values = restore_actor(options.checkpoint)
    return write_policy(learner, state, values | options.changes, options.file, options.force)


def write_policy(
    learner: Learner, state: LearnerState, values: dict[str, Any], file: Path, force: bool = False
) -> Exported:
    """Writes a learner's deterministic policy as a bundle.

    Args:
      values: what `describe` gives, how the policy was made (`PROVENANCE`, as far as it is known), and `target_step`
        where its targets have one.
      file: the bundle to write; an existing one only with `force`.

    Returns:
      `describe()` of the written bundle and `parity`, the largest difference to the JAX network over 1,000 inputs.

    Raises:
      InputError: `file` exists.
    """
    statistics: Any = state.normalizer
    mean, std = np.asarray(statistics.mean["state"]), np.asarray(statistics.std["state"])

    def mean_action(seen: np.ndarray) -> np.ndarray:
        return np.asarray(learner.mean_action(state, seen), np.float32)

    layers, activation = _layers(state.params.policy), learner.config.networks.activation
    return write_network(layers, activation, mean, std, mean_action, values, file, force)


def write_network(
    layers: list[tuple[np.ndarray, np.ndarray]],
    activation: str,
    mean: np.ndarray,
    std: np.ndarray,
    mean_action: Callable[[np.ndarray], np.ndarray],
    values: dict[str, Any],
    file: Path,
    force: bool = False,
) -> Exported:
    """Writes a network, whichever library trained it, as a bundle.

    Args:
      layers: kernel `[inputs, outputs]` and bias of each dense layer; `activation` (swish, elu, relu, tanh) between.
      mean, std: of the observation, by which it is normalised, `[layout.size]`.
      mean_action: the same network where it was trained: observations `[N, layout.size]` to actions `[N, J]`.
      values, file, force: as `write_policy`; of `values`, `task_fields`, provenance and step.

    Returns:
      As `write_policy`.

    Raises:
      InputError: `file` exists.
    """
    if file.exists() and not force:
        raise InputError(f"{file} exists: add --force to replace it")
    graph = _graph(layers, activation, mean, std)
    rng = np.random.default_rng(0)
    seen = (mean + std * rng.standard_normal((1000, len(mean))) * rng.uniform(0.2, 2.0, (1000, 1))).astype(np.float32)
    actions = np.asarray(mean_action(seen), np.float32)
    golden = {"observation": seen[:GOLDEN_COUNT].tolist(), "action": actions[:GOLDEN_COUNT].tolist()}
    metadata = Metadata(
        schema=SCHEMA,
        skill=values["skill"],
        **robot_fields(robot_by_name(values["robot"])),
        layout=values["layout"],
        gait=values["gait"],
        command_ranges=values["command_ranges"],
        normalizer={"mean": mean.tolist(), "std": std.tolist()},
        provenance={name: values[name] for name in PROVENANCE if name in values},
        golden=golden,
        target_step=values.get("target_step"),
    )
    write_bundle(graph, metadata, file, force)
    bundle = Bundle.load(file)
    return Exported.of({**bundle.describe(), "parity": float(np.abs(bundle(seen) - actions).max())})
