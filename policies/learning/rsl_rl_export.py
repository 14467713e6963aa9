"""What rsl_rl has trained as a policy bundle: the actor's layers and normaliser in one ONNX file."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rsl_rl.models import MLPModel
from torch import nn

from policies.learning.export import task_fields, write_network
from policies.learning.results import Exported
from sim.errors import InputError
from sim.tasks.task import Task

ACTIVATIONS = {nn.ELU: "elu", nn.ReLU: "relu", nn.Tanh: "tanh", nn.SiLU: "swish"}
"""Those that bundles have."""


def write_actor(
    actor: MLPModel, task: Task, file: Path | str, *, skill: str = "walk", force: bool = False, **provenance: Any
) -> Exported:
    """Writes the deterministic policy of an rsl_rl actor (`runner.alg.get_policy()`) that was trained on `task`.

    Args:
      file: the bundle to write; an existing one only with `force`.
      skill: what the bundle says it does: `walk`, `climb` or `jump`.
      provenance: how it was made, as far as it is known (`policies.learning.export.PROVENANCE`).

    Returns:
      `describe()` of the written bundle and `parity`, the largest difference to the actor over 1,000 inputs.

    Raises:
      InputError: not a plain MLP on `policy` with one known activation, or `file` exists.
    """
    file = Path(file)
    layers = [(m.weight.detach().cpu().numpy().T, m.bias.detach().cpu().numpy()) for m in _linear(actor)]
    others = {type(module) for module in actor.mlp if not isinstance(module, nn.Linear)}
    if type(actor) is not MLPModel or actor.obs_groups != ["policy"]:
        raise InputError("only an rsl_rl MLPModel on the observation group 'policy' can become a bundle")
    if len(others) != 1 or not others <= set(ACTIVATIONS):
        known = ", ".join(sorted(ACTIVATIONS.values()))
        raise InputError(f"a bundle's network has one activation of {known} and a linear last layer")
    mean, std = np.zeros(task.layout.size, np.float32), np.ones(task.layout.size, np.float32)
    if actor.obs_normalization:
        normalizer: Any = actor.obs_normalizer
        mean = normalizer.mean.cpu().numpy()
        std = normalizer.std.cpu().numpy() + np.float32(normalizer.eps)

    def mean_action(seen: np.ndarray) -> np.ndarray:
        device = next(actor.parameters()).device
        with torch.inference_mode():
            return actor({"policy": torch.from_numpy(seen).to(device)}).cpu().numpy()

    values = {**task_fields(skill, task), **provenance}
    return write_network(layers, ACTIVATIONS[others.pop()], mean, std, mean_action, values, file, force)


def _linear(actor: MLPModel) -> list[nn.Linear]:
    return [module for module in actor.mlp if isinstance(module, nn.Linear)]
