"""From a trained Locomotion-Transformer to a policy bundle: PyTorch graph, normaliser inside, one ONNX file."""

import copy
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from policies.bundle.reader import SCHEMA, Bundle, Metadata, robot_fields
from policies.bundle.writer import GOLDEN_COUNT, write_bundle
from policies.transformer import Deployed, LocomotionTransformer, Straight
from sim.errors import InputError
from sim.robots.description import Robot
from sim.robots.gaits import DRIVEN

RANDOM_INPUTS = 500
OPSET = 17
ROWS_AT_ONCE = 64


def export_transformer(
    model: LocomotionTransformer,
    file: Path,
    *,
    robot: Robot,
    command_ranges: dict[str, list[float]],
    provenance: dict[str, Any],
    recorded: np.ndarray,
    target_step: float | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Writes `model` as a bundle; equal parameters give equal bytes.

    Args:
      target_step: as in `policies.bundle.metadata.Metadata`.
      recorded: observations `[N, layout.size]` that robots really made; the first become golden vectors, all of them
        and `RANDOM_INPUTS` random ones are compared.

    Returns:
      `describe()` of the written bundle, `parity`, the largest difference to the PyTorch model, and `rounding`, that
      of the PyTorch model to itself in double precision.

    Raises:
      InputError: the file exists and `force` is not set, or cannot be written.
    """
    if file.exists() and not force:
        raise InputError(f"{file} exists: add --force to replace it")
    model = model.cpu().eval()
    mean, std = _flat(model, "mean"), _flat(model, "std")
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((RANDOM_INPUTS, len(mean))) * rng.uniform(0.2, 2.0, (RANDOM_INPUTS, 1))
    seen = np.concatenate([recorded, mean + std * noise]).astype(np.float32)
    deployed = Deployed(model)
    actions, exact = actions_of(deployed, seen), actions_of(copy.deepcopy(deployed).double(), seen.astype(np.float64))
    metadata = Metadata(
        schema=SCHEMA,
        skill="generalist",
        **robot_fields(robot),
        layout=model.layout.to_dict(),
        gait=DRIVEN.to_dict(),
        command_ranges=command_ranges,
        normalizer={"mean": mean.tolist(), "std": std.tolist()},
        provenance=provenance,
        golden={"observation": seen[:GOLDEN_COUNT].tolist(), "action": actions[:GOLDEN_COUNT].tolist()},
        target_step=target_step,
    )
    write_bundle(graph_of(model), metadata, file, force)
    bundle = Bundle.load(file)
    return {
        **bundle.describe(),
        "parameters": model.size,
        "parity": float(np.abs(bundle(seen) - actions).max()),
        "parity_inputs": len(seen),
        "rounding": float(np.abs(actions - exact).max()),
    }


def actions_of(network: torch.nn.Module, seen: np.ndarray) -> np.ndarray:
    """Actions `[N, J + 1]` of a network in one of `FORMS` for observations `[N, layout.size]`, in parts."""
    with torch.no_grad():
        parts = np.array_split(seen, -(-len(seen) // ROWS_AT_ONCE))
        return np.concatenate([network(torch.from_numpy(part)).numpy() for part in parts])


def _flat(model: LocomotionTransformer, name: str) -> np.ndarray:
    frames, heights = (getattr(part, name).numpy() for part in (model.frames, model.heights))
    return np.concatenate([np.tile(frames, len(model.layout.frames)), heights])


def graph_of(model: LocomotionTransformer, form: type[Straight] = Deployed) -> Any:
    """The ONNX graph of a model as it runs on a robot, or in another of `FORMS`: `observation` in, `action` out. Its
    initializers are the model's parameters, but for those of the `Straight` form, of which some are transposed or cut.
    """
    deployed, size = form(model), model.layout.size
    file: Any = io.BytesIO()
    names: dict[str, Any] = {"input_names": ["observation"], "output_names": ["action"]}
    with warnings.catch_warnings():  # torch's newer exporter would need a package more
        warnings.simplefilter("ignore")
        torch.onnx.export(
            deployed, (torch.zeros(2, size),), file, dynamo=False, opset_version=OPSET,
            dynamic_axes={"observation": {0: "batch"}, "action": {0: "batch"}},
            do_constant_folding=form is Straight, **names,
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue()).graph
