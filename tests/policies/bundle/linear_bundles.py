"""Bundles whose networks are single matrices written straight into ONNX, so that every number is known."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from policies.bundle.reader import KEY, Bundle, Metadata, robot_fields
from sim.errors import InputError
from sim.observation import Grid, Layout
from sim.robots.description import default_robot
from sim.robots.gaits import Gait

ROBOT = default_robot()
LAYOUT = Layout(12, frames=(0, 1), grids=(Grid("around", (0.0, 0.3), (-0.1, 0.1)),))
PARTS = LAYOUT.slices()
GAIT = Gait()
SIZE = LAYOUT.size


def metadata(weights: np.ndarray, bias: np.ndarray, layout: Layout = LAYOUT) -> Metadata:
    """What a bundle of the network `observation @ weights + bias` says about itself."""
    rows = np.random.default_rng(0).normal(0, 1, (4, layout.size)).astype(np.float32)
    return Metadata(
        schema=1,
        skill="walk",
        **robot_fields(ROBOT),
        layout=json.loads(json.dumps(layout.to_dict())),
        gait=json.loads(json.dumps(GAIT.to_dict())),
        command_ranges={"forward": [-1.0, 1.0], "sideways": [-0.5, 0.5], "yaw": [-1.0, 1.0]},
        normalizer={"mean": [0.0] * layout.size, "std": [1.0] * layout.size},
        provenance={"command": "a test", "seed": 0},
        golden={"observation": rows.tolist(), "action": (rows @ weights + bias).tolist()},
    )


def write(
    file: Path,
    weights: np.ndarray,
    bias: np.ndarray,
    text: str | None,
    names: tuple[str, str] = ("observation", "action"),
    extra: bool = False,
) -> Path:
    """One Gemm node as an ONNX file with `text` as its metadata."""
    nodes = [helper.make_node("Gemm", [names[0], "weights", "bias"], [names[1]])]
    outputs = [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, ["batch", weights.shape[1]])]
    if extra:
        nodes.append(helper.make_node("Neg", [names[1]], ["second"]))
        outputs.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, ["batch", weights.shape[1]]))
    inputs = [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, ["batch", weights.shape[0]])]
    arrays = [numpy_helper.from_array(a.astype(np.float32), n) for a, n in ((weights, "weights"), (bias, "bias"))]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if text is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = KEY, text
    file.write_bytes(model.SerializeToString())
    return file


def network(layout: Layout = LAYOUT, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, (layout.size, 12)).astype(np.float32), rng.normal(0, 0.1, 12).astype(np.float32)


WEIGHTS, BIAS = network()
GOOD = metadata(WEIGHTS, BIAS)


def altered(folder: Path, **changes) -> Path:
    """A bundle whose metadata differ from the good ones in the given keys."""
    return write(folder / "altered.onnx", WEIGHTS, BIAS, json.dumps({**asdict(GOOD), **changes}))


def refusal(file: Path) -> str:
    """The one line with which a file is refused; anything else than `InputError` fails the test."""
    with pytest.raises(InputError) as caught:
        Bundle.load(file)
    message = str(caught.value)
    assert "\n" not in message.strip() and str(file) in message and len(message) > len(str(file)) + 10
    return message
