"""A bundle is one whole file: its checksum, what it points to, what it says of itself, and what it takes to run it."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from linear_bundles import BIAS, GOOD, LAYOUT, ROBOT, SIZE, WEIGHTS, altered, refusal, write
from onnx import TensorProto, helper, numpy_helper

from policies.bundle import trial
from policies.bundle.container import CHECKSUM, Container
from policies.bundle.metadata import flat
from policies.bundle.reader import KEY, SCHEMA, Bundle, Metadata
from policies.bundle.shipped import bundle_file
from policies.bundle.writer import FORMERLY, renew, write_bundle
from sim import limited


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(trial.VARIABLE, str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def stamped(tmp_path_factory) -> bytes:
    """A bundle as it is written today."""
    folder = tmp_path_factory.mktemp("stamped")
    graph = onnx.load(write(folder / "graph.onnx", WEIGHTS, BIAS, None)).graph
    write_bundle(graph, replace(GOOD, schema=SCHEMA), folder / "good.onnx")
    return (folder / "good.onnx").read_bytes()


def with_properties(content: bytes, changes: dict[str, str | None]) -> bytes:
    """The model with other properties; None takes one away. The checksum is left as it was."""
    model = onnx.load_from_string(content)
    kept = {p.key: p.value for p in model.metadata_props} | changes
    del model.metadata_props[:]
    for key, value in kept.items():
        if value is not None:
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
    return model.SerializeToString()


# --- the checksum -----------------------------------------------------------------------------------------------------


def test_any_flipped_bit_is_refused(stamped, tmp_path):
    rng = np.random.default_rng(0)
    file = tmp_path / "flipped.onnx"
    for place in rng.choice(8 * len(stamped), 200, replace=False):
        flipped = bytearray(stamped)
        flipped[place // 8] ^= 1 << (place % 8)
        file.write_bytes(flipped)
        refusal(file)


def test_a_file_of_today_needs_its_checksum_and_an_older_one_says_that_it_has_none(stamped, tmp_path):
    file = tmp_path / "stripped.onnx"
    file.write_bytes(with_properties(stamped, {CHECKSUM: None}))
    refusal(file)
    older = write(tmp_path / "older.onnx", WEIGHTS, BIAS, GOOD.to_json())
    assert Bundle.load(older, trusted=True).checksum is None
    file.write_bytes(stamped)
    digest = Bundle.load(file, trusted=True).checksum
    assert digest is not None
    assert digest == hashlib.sha256(stamped.replace(digest.encode(), b"0" * 64)).hexdigest()


def test_an_older_file_is_renewed_without_another_answer(tmp_path):
    file = write(tmp_path / "older.onnx", WEIGHTS, BIAS, GOOD.to_json())
    was, rows = hashlib.sha256(file.read_bytes()).hexdigest(), np.random.default_rng(1).normal(size=(40, SIZE))
    before = Bundle.load(file, trusted=True)(rows.astype(np.float32))
    assert renew(file) and not renew(file)
    after = Bundle.load(file, trusted=True)
    np.testing.assert_array_equal(after(rows.astype(np.float32)), before)
    said = asdict(after.metadata)
    assert said["provenance"].pop(FORMERLY) == was
    assert said == {**asdict(GOOD), "schema": SCHEMA}


def test_other_tools_find_their_keys_at_full_precision_and_they_cannot_say_something_else(stamped, tmp_path):
    said = {p.key: p.value for p in onnx.load_from_string(stamped).metadata_props}
    assert said["joint_names"].split(",") == list(ROBOT.joint_names)
    for name, wanted in (
        ("joint_stiffness", ROBOT.kp), ("joint_damping", ROBOT.kd), ("default_joint_pos", ROBOT.default_pose),
        ("action_scale", ROBOT.action_scale),
    ):  # fmt: skip
        np.testing.assert_array_equal(np.array(said[name].split(","), float), wanted)
    assert said["observation_names"].split(",") == list(LAYOUT.slices())
    assert said["command_names"] == "forward,sideways,yaw"
    other = with_properties(stamped, {"joint_stiffness": ",".join(["99.0"] * 12), CHECKSUM: "0" * 64})
    first, last = Container.read(other).places[CHECKSUM]
    file = tmp_path / "other.onnx"
    file.write_bytes(other[:first] + Container.read(other).digest().encode() + other[last:])
    assert "joint_stiffness" in refusal(file)


@pytest.mark.parametrize("name", ["walk", "climb", "jump", "generalist"])
def test_the_shipped_files_are_of_today(name):
    bundle = Bundle.load(bundle_file(name))
    assert bundle.checksum and bundle.metadata.schema == SCHEMA
    found = Container.read(bundle.path.read_bytes()).properties
    assert set(flat(bundle.metadata, bundle.layout)) | {KEY, CHECKSUM} == set(found)


# --- one file ---------------------------------------------------------------------------------------------------------


def test_weights_in_another_file_are_refused_wherever_they_are_kept(tmp_path):
    model = onnx.load(write(tmp_path / "inside.onnx", WEIGHTS, BIAS, GOOD.to_json()))
    onnx.save_model(
        model, tmp_path / "outside.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    assert (tmp_path / "weights.bin").is_file()
    assert "another file" in refusal(tmp_path / "outside.onnx")
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(WEIGHTS, "w"))
    constant.attribute[0].t.data_location = TensorProto.EXTERNAL
    model.graph.node.insert(0, constant)
    (tmp_path / "constant.onnx").write_bytes(model.SerializeToString())
    assert "another file" in refusal(tmp_path / "constant.onnx")


def test_a_file_of_very_many_pieces_or_levels_is_refused_at_once(tmp_path):
    (tmp_path / "many.onnx").write_bytes(b"\x08\x07" * 5_000_000)
    refusal(tmp_path / "many.onnx")
    deep = b""
    for _ in range(2_000):  # graph > node > attribute > graph ...
        for tag in (0x32, 0x2A, 0x0A):
            size, body = len(deep), b""
            while size >= 0x80:
                body, size = body + bytes([size & 0x7F | 0x80]), size >> 7
            deep = bytes([tag]) + body + bytes([size]) + deep
    (tmp_path / "deep.onnx").write_bytes(b"\x3a" + deep[1:])
    refusal(tmp_path / "deep.onnx")


# --- what it says of itself -------------------------------------------------------------------------------------------


def grids(**changes) -> dict:
    return {**LAYOUT.to_dict(), "grids": [{**LAYOUT.to_dict()["grids"][0], **changes}]}


RANGES = GOOD.command_ranges


@pytest.mark.parametrize(
    "changes",
    [
        {"skill": "fly"},
        {"skill": None},
        {"gait": {**GOOD.gait, "push": 50.0}},
        {"gait": {**GOOD.gait, "frequency": 0.0}},
        {"gait": {**GOOD.gait, "frequency": True}},
        {"gait": {**GOOD.gait, "frequency_range": [3.0, 2.0]}},
        {"gait": {**GOOD.gait, "phase_offsets": [0.0, 9.0, 0.5, 0.0]}},
        {"gait": {**GOOD.gait, "front": {**GOOD.gait["front"], "knee": -40.0}}},
        {"gait": {**GOOD.gait, "name": 3}},
        {"command_ranges": {**RANGES, "forward": [float("-inf"), float("inf")]}},
        {"command_ranges": {**RANGES, "forward": [-1e300, 1e300]}},
        {"command_ranges": {**RANGES, "forward": [1.0, -1.0]}},
        {"command_ranges": {**RANGES, "forward": [0.5, 1.0]}},
        {"command_ranges": {**RANGES, "yaw": [-500.0, 500.0]}},
        {"command_ranges": {**RANGES, "yaw": [False, True]}},
        {"command_ranges": {**RANGES, "yaw": [-1.0, 0.0, 1.0]}},
        {"command_ranges": {**RANGES, "up": [0.0, 1.0]}},
        {"layout": grids(x=[5.0, 5.3])},
        {"layout": grids(x=[0.1, 0.4])},
        {"layout": grids(y=[0.1, 0.3])},
        {"layout": grids(x=[0.3, 0.0])},
        {"layout": grids(x=[0.0, 0.3, 0.3, 0.9])},
        {"layout": grids(x=[0.0, float("nan")])},
        {"layout": grids(x=[0.0, 1e-9])},
        {"layout": grids(name="\x1b[2J")},
        {"layout": {**LAYOUT.to_dict(), "frames": [1, 1]}},
        {"layout": {**LAYOUT.to_dict(), "frames": [False, True]}},
        {"normalizer": {"mean": [0.0] * SIZE, "std": [0.0] * SIZE}},
        {"normalizer": {"mean": [0.0], "std": [1.0]}},
        {"provenance": {"seconds": float("nan")}},
        {"schema": True},
        {"kp": True},
        {"golden": {**GOOD.golden, "observation": [[True] * SIZE] * 4}},
    ],
    ids=lambda changes: json.dumps(changes)[:60],
)
def test_what_no_policy_can_have_been_trained_with_is_refused(tmp_path, changes):
    refusal(altered(tmp_path, **changes))


def test_a_key_given_twice_is_refused(tmp_path):
    text = GOOD.to_json()
    refusal(write(tmp_path / "twice.onnx", WEIGHTS, BIAS, '{"skill":"jump",' + text[1:]))
    deep = '{"schema":1,"provenance":' + "[" * 100_000
    refusal(write(tmp_path / "deep.onnx", WEIGHTS, BIAS, deep))
    refusal(write(tmp_path / "digits.onnx", WEIGHTS, BIAS, '{"schema":' + "1" * 10_000 + "}"))


@pytest.mark.parametrize("which", ["input", "output"])
def test_a_network_for_one_number_of_robots_is_refused(tmp_path, which):
    model = onnx.load(write(tmp_path / "any.onnx", WEIGHTS, BIAS, GOOD.to_json()))
    getattr(model.graph, which)[0].type.tensor_type.shape.dim[0].dim_value = 2
    (tmp_path / "two.onnx").write_bytes(model.SerializeToString())
    assert "any number" in refusal(tmp_path / "two.onnx")


def test_a_network_whose_answer_depends_on_its_neighbours_is_refused(tmp_path):
    """One that takes the mean over the rows away answers its golden vectors, but not one of them alone."""
    rows = np.asarray(GOOD.golden["observation"], np.float32)
    model = onnx.load(write(tmp_path / "any.onnx", WEIGHTS, BIAS, None))
    model.graph.node[0].input[0] = "centered"
    model.graph.node.insert(0, helper.make_node("Sub", ["observation", "mean"], ["centered"]))
    model.graph.node.insert(0, helper.make_node("ReduceMean", ["observation"], ["mean"], axes=[0], keepdims=1))
    golden = {**GOOD.golden, "action": ((rows - rows.mean(0)) @ WEIGHTS + BIAS).tolist()}
    write_properties(model, replace(GOOD, golden=golden))
    (tmp_path / "centered.onnx").write_bytes(model.SerializeToString())
    assert "golden" in refusal(tmp_path / "centered.onnx")


def write_properties(model: onnx.ModelProto, metadata: Metadata) -> None:
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, metadata.to_json()


# --- what it takes ----------------------------------------------------------------------------------------------------


def with_nodes(file: Path, *nodes: onnx.NodeProto) -> Path:
    """The good network with more nodes before it, whose result is not used in its answer."""
    model = onnx.load(write(file, WEIGHTS, BIAS, GOOD.to_json()))
    model.graph.node[0].output[0] = "linear"
    for node in nodes:
        model.graph.node.append(node)
    model.graph.node.append(helper.make_node("Add", ["linear", "nothing"], ["action"]))
    file.write_bytes(model.SerializeToString())
    return file


def endless() -> onnx.NodeProto:
    """A loop that never ends and gives 0."""
    kept = helper.make_node("Identity", ["condition_in"], ["condition_out"])
    same = helper.make_node("Identity", ["value_in"], ["value_out"])
    names = (("iteration", TensorProto.INT64), ("condition_in", TensorProto.BOOL), ("value_in", TensorProto.FLOAT))
    inputs = [helper.make_tensor_value_info(name, kind, []) for name, kind in names]
    outputs = [
        helper.make_tensor_value_info("condition_out", TensorProto.BOOL, []),
        helper.make_tensor_value_info("value_out", TensorProto.FLOAT, []),
    ]
    body = helper.make_graph([kept, same], "body", inputs, outputs)
    return helper.make_node("Loop", ["", "true", "zero"], ["nothing"], body=body)


def constant(name: str, value: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))


def test_a_loop_is_refused_unseen_and_by_the_child_where_it_is_hidden(tmp_path, monkeypatch):
    file = with_nodes(
        tmp_path / "endless.onnx",
        constant("true", np.array(True)),
        constant("zero", np.array(0.0, np.float32)),
        endless(),
    )
    assert "Loop" in refusal(file)
    monkeypatch.setattr("policies.bundle.reader.LOOPS", ())
    popen = limited.subprocess.Popen

    def shorter(command, **more):
        return popen(["sh", "-c", 'ulimit -t 1; exec "$0" "$@"', *command], **more)

    monkeypatch.setattr(limited.subprocess, "Popen", shorter)
    assert "answer within" in refusal(file)


def test_a_network_of_many_gigabytes_is_refused_and_this_process_never_has_them(tmp_path):
    nodes = (
        constant("shape", np.array([1 << 31], np.int64)),
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["nothing"], keepdims=0),
    )
    assert "memory" in refusal(with_nodes(tmp_path / "huge.onnx", *nodes))


def test_a_file_that_ran_is_not_tried_again(stamped, tmp_path, monkeypatch):
    file = tmp_path / "once.onnx"
    changed = replace(GOOD, schema=SCHEMA, provenance={"command": "of this test"})
    write_bundle(onnx.load_from_string(stamped).graph, changed, file)
    monkeypatch.setattr(trial, "_tried", set())
    monkeypatch.setenv(trial.VARIABLE, "")  # nothing is kept: it is tried
    Bundle.load(file)
    monkeypatch.setattr(limited.subprocess, "Popen", None)
    Bundle.load(file)  # by this process
    monkeypatch.setattr(trial, "_tried", set())
    with pytest.raises(TypeError):
        trial.try_out(file.read_bytes())
    monkeypatch.setenv(trial.VARIABLE, str(tmp_path / "kept"))
    Bundle.load(file, trusted=True)
    monkeypatch.setattr(trial, "_tried", set())
    Bundle.load(file)  # by another one
