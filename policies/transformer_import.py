"""From a bundle back to the Locomotion-Transformer in it, to train it on: the inverse of `policies.transformer_export`.

The exporter renames, transposes and cuts parameters as it likes. So a model of the same form with random parameters is
exported beside: where its values have gone is where the file's are to be found.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from policies.bundle.reader import Bundle
from policies.transformer import FORMS, Deployed, LocomotionTransformer, TransformerConfig
from policies.transformer_export import actions_of, graph_of
from sim.errors import InputError


def read_config(file: Path) -> TransformerConfig:
    """The sizes of the model in a bundle, without its parameters, which take seconds to read.

    Raises:
      InputError: no bundle, or one that says it holds no Transformer, or a larger one than it can.
    """
    return _config(Bundle.load(file))


def _config(bundle: Bundle) -> TransformerConfig:
    try:
        config = TransformerConfig.from_dict(bundle.metadata.provenance["network"])
        size = config.layers * config.width  # at least: its norms' parameters
        if 4 * size <= bundle.path.stat().st_size:
            with torch.device("meta"):  # what a file says of itself is no reason to ask for any memory
                size = LocomotionTransformer(config).size
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{bundle.path} holds no Locomotion-Transformer") from error
    if 4 * size > bundle.path.stat().st_size:
        raise InputError(f"{bundle.path} is smaller than the Locomotion-Transformer that it says it holds")
    return config


def read_transformer(file: Path) -> LocomotionTransformer:
    """The model in a bundle that `export_transformer` wrote, normalisers included.

    Raises:
      InputError: no bundle, one of another network than this version's Transformer, or one that gives other actions.
    """
    bundle = Bundle.load(file)
    config = _config(bundle)
    model = LocomotionTransformer(config)
    if config.joints != bundle.robot.joints or model.layout != bundle.layout:
        raise InputError(f"{file} holds a Transformer of another form than this version's")
    pattern = LocomotionTransformer(config).eval()
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal(tensor.shape) for name, tensor in pattern.state_dict().items()}
    pattern.load_state_dict({name: torch.as_tensor(value, dtype=torch.float32) for name, value in values.items()})
    theirs = onnx.load(str(file), load_external_data=False).graph
    forms = (graph_of(pattern, form) for form in FORMS)
    ours = next((form for form in forms if _operations(form) == _operations(theirs)), None)
    if ours is None:
        raise InputError(f"the network in {file} was exported in another form than this version's")
    model.load_state_dict(_moved(pattern, _arrays(ours), _arrays(theirs), file))
    seen = np.asarray(bundle.metadata.golden["observation"], np.float32)
    if np.abs(actions_of(Deployed(model.eval()), seen) - bundle(seen)).max() > PARITY:
        raise InputError(f"the parameters of {file} do not give its actions")
    return model


def graph_of_today(file: Path) -> Any:
    """The graph of a bundle's Transformer as it would be exported now, of equal parameters; None where the bundle holds
    none that `read_transformer` can read, and so stays as it is."""
    try:
        return graph_of(read_transformer(file).eval())
    except InputError:
        return None


PARITY = 1e-4
"""Largest difference between the actions of a file and those of the model that was read from it, action units."""


def _operations(graph: Any) -> list[str]:
    return [node.op_type for node in graph.node]


def _arrays(graph: Any) -> list[np.ndarray]:
    return [np.asarray(numpy_helper.to_array(tensor)) for tensor in graph.initializer]


def _moved(
    pattern: LocomotionTransformer, ours: list[np.ndarray], theirs: list[np.ndarray], file: Path
) -> dict[str, torch.Tensor]:
    """`theirs` in the places from which `ours` came, by the parameters' names."""
    if [a.shape for a in ours] != [b.shape for b in theirs]:
        raise InputError(f"the network in {file} has parameters of another size than its description says")
    known = {name: tensor.numpy() for name, tensor in pattern.state_dict().items()}
    found = {name: np.full(value.shape, np.nan, np.float32) for name, value in known.items()}
    for mine, other in zip(ours, theirs, strict=True):
        for name, value in known.items():
            if value.shape == mine.shape and np.array_equal(value, mine):
                found[name][...] = other
            elif value.T.shape == mine.shape and np.array_equal(value.T, mine):
                found[name][...] = other.T
            elif value.ndim == mine.ndim + 1 and value.shape[1:] == mine.shape:
                found[name][(value == mine).reshape(len(value), -1).all(1)] = other
    lacking = [name for name, value in found.items() if not np.isfinite(value).all()]
    if lacking:
        raise InputError(f"the network in {file} lacks parameters: {lacking[0]}")
    return {name: torch.from_numpy(value) for name, value in found.items()}
