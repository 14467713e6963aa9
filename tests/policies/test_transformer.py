"""The Locomotion-Transformer: what may look at what, its size, and the bundle that it becomes."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from distill.locomotion.export import export
from policies import transformer, transformer_export
from policies.bundle.reader import Bundle, Policy
from policies.bundle.runtime import onnxruntime
from policies.bundle.shipped import bundle_file
from policies.bundle.writer import rewrite
from policies.learning.options import ExportOptions
from policies.transformer import FORMS, Deployed, LocomotionTransformer, TransformerConfig, generalist_layout, unpack
from policies.transformer_export import export_transformer, graph_of
from policies.transformer_import import read_transformer
from sim import observation as obs
from sim.errors import InputError
from sim.robots.description import default_robot

SMALL = TransformerConfig(width=32, layers=2, heads=2, channels=4)
RANGES = {"forward": [-1.6, 2.1], "sideways": [-0.9, 0.9], "yaw": [-1.7, 1.7]}
LAYOUT = generalist_layout(12)


def model(config: TransformerConfig = SMALL, seed: int = 0) -> LocomotionTransformer:
    torch.manual_seed(seed)
    net = LocomotionTransformer(config).eval()
    rng = np.random.default_rng(seed)
    net.frames.fit(rng.normal(size=net.layout.frame_size), rng.uniform(0.1, 2.0, net.layout.frame_size))
    net.heights.fit(rng.normal(size=net.layout.height_size), rng.uniform(0.1, 2.0, net.layout.height_size))
    return net


def window(batch: int = 3, steps: int = 15, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(batch, steps, LAYOUT.frame_size), torch.randn(batch, steps, LAYOUT.height_size)


def test_the_shipped_size_has_less_than_a_million_parameters():
    assert LocomotionTransformer().size < 1_000_000


def test_reading_every_step_gives_the_last_one_what_reading_it_alone_gives():
    net, (frames, heights) = model(), window()
    with torch.no_grad():
        whole, last = net(frames, heights), net.newest(frames, heights[:, -1])
    assert whole.shape == (3, 15, 13)
    assert torch.allclose(whole[:, -1], last, atol=1e-6)


@pytest.mark.parametrize("context", [1, 5, 15])
def test_a_shortened_model_is_the_same_without_what_is_older(context, monkeypatch):
    net, (frames, heights) = model(), window()
    short = net.shortened(context)
    assert short.config.context == context and len(short.layout.frames) == context
    whole_mask = transformer._mask

    def newest_alone(*asked):
        mask = whole_mask(*asked)
        mask[-1, : 2 * (15 - context)] = float("-inf")
        for row in range(2 * (15 - context), 30):
            mask[row, : 2 * (15 - context)] = float("-inf")
        return mask

    with torch.no_grad():
        found = short.newest(frames[:, -context:], heights[:, -1])
        whole = net.newest(frames, heights[:, -1])
        monkeypatch.setattr(transformer, "_mask", newest_alone)
        expected = net.newest(frames, heights[:, -1])
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(found, whole, atol=1e-6) == (context == 15)
    short.age.data += 1.0
    assert not torch.equal(short.age, net.age[-context:]), "what it learns changes nothing of the other"


def test_a_model_cannot_be_made_to_see_more():
    with pytest.raises(InputError, match="16"):
        model().shortened(16)
    with pytest.raises(InputError, match="mlp"):
        model(replace(SMALL, kind="mlp", hidden=(8,))).shortened(5)


@pytest.mark.parametrize("step", [0, 7, 13])
def test_nothing_looks_into_the_future(step):
    net, (frames, heights) = model(), window()
    later = [x.clone() for x in (frames, heights)]
    for x in later:
        x[:, step + 1 :] += 1.0
    with torch.no_grad():
        before, after = net(frames, heights), net(*later)
    assert torch.equal(before[:, : step + 1], after[:, : step + 1])
    assert not torch.allclose(before[:, step + 1], after[:, step + 1])


def test_a_step_sees_its_own_terrain_and_no_other():
    net, (frames, heights) = model(), window()
    other = heights.clone()
    other[:, 6] += 1.0
    with torch.no_grad():
        changed = (net(frames, heights) - net(frames, other)).abs().amax(-1)
    assert (changed[:, 6] > 1e-6).all()
    assert torch.equal(changed[:, :6], torch.zeros(3, 6)) and torch.equal(changed[:, 7:], torch.zeros(3, 8))


@pytest.mark.parametrize("part", ["gravity", "last action", "command", "clock"])
def test_every_part_of_every_step_counts(part):
    where = {"gravity": slice(0, 3), "last action": slice(30, 42), "command": slice(42, 45), "clock": slice(45, 47)}
    net, (frames, heights) = model(), window(1)
    frames.requires_grad_(True)
    net.newest(frames, heights[:, -1]).square().sum().backward()
    assert frames.grad is not None
    assert (frames.grad[0, :, where[part]].abs().sum(-1) > 0).all()


def test_an_mlp_of_the_same_interface_reads_the_last_step():
    net, (frames, heights) = model(TransformerConfig(kind="mlp", hidden=(64,))), window()
    with torch.no_grad():
        assert net(frames, heights).shape == (3, 1, 13)
        assert torch.equal(net(frames, heights)[:, 0], net.newest(frames, heights[:, -1]))


@pytest.mark.parametrize(
    "values", [{"context": 0}, {"context": 61}, {"width": 30, "heads": 4}, {"layers": 0}, {"kind": "rnn"}]
)
def test_sizes_that_cannot_be_are_refused(values):
    with pytest.raises(InputError):
        TransformerConfig(**values)


def observations(count: int, layout: obs.Layout = LAYOUT) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((count, layout.size)).astype(np.float32)


def written(tmp_path, net: LocomotionTransformer | None = None, name: str = "generalist.onnx"):
    net = net or model()
    file = tmp_path / name
    found = export_transformer(
        net, file, robot=default_robot(), command_ranges=RANGES,
        provenance={"seed": 1, "network": net.config.to_dict()},
        recorded=observations(500, net.layout),
    )  # fmt: skip
    return file, found, net


@pytest.mark.parametrize("context", [1, 15, 30])
def test_the_bundle_reproduces_the_model(tmp_path, context):
    file, found, net = written(tmp_path, model(TransformerConfig(context, 32, 2, 2, 4)))
    assert found["parity"] <= 1e-5 and found["parity_inputs"] == 1000
    seen = observations(7, net.layout)
    with torch.no_grad():
        wanted = net.newest(*unpack(net.layout, torch.from_numpy(seen))).numpy()
    assert np.abs(Bundle.load(file)(seen) - wanted).max() <= 1e-5


def test_equal_parameters_give_equal_bytes(tmp_path):
    first, _, net = written(tmp_path)
    second, _, _ = written(tmp_path, net, "again.onnx")
    assert first.read_bytes() == second.read_bytes()


MLP = TransformerConfig(5, 32, 2, 2, 4, kind="mlp", hidden=(24, 16))


@pytest.mark.parametrize("config", [SMALL, TransformerConfig(1, 32, 1, 4, 4), TransformerConfig(30, 16, 1, 2, 2), MLP])
def test_a_bundle_gives_its_model_back(tmp_path, config):
    net = model(config)
    with torch.no_grad():
        for parameter in net.parameters():  # as after training: the exporter merges parameters that are equal
            parameter.add_(0.05 * torch.randn_like(parameter))
    file, _, _ = written(tmp_path, net)
    found = read_transformer(file)
    assert found.config == config
    for name, value in net.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("form", FORMS[1:])
def test_a_bundle_of_an_earlier_form_gives_its_model_back_and_is_written_in_that_of_today(tmp_path, monkeypatch, form):
    net = model()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    now, _, _ = written(tmp_path, net)
    seen = observations(9, net.layout)
    with monkeypatch.context() as earlier:
        earlier.setattr(transformer_export, "graph_of", lambda it: graph_of(it, form))
        before, _, _ = written(tmp_path, net, "before.onnx")
    assert operations(before) != operations(now)
    for name, value in read_transformer(before).state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value, rtol=0, atol=0, msg=name)
    again = tmp_path / "again.onnx"
    exported = export(ExportOptions(before, again, target_step=0.5))
    assert operations(again) == operations(now) and exported.parity < 1e-5
    assert Bundle.load(again).metadata.target_step == 0.5
    np.testing.assert_allclose(Bundle.load(again)(seen), Bundle.load(before)(seen), atol=1e-5)


def operations(file) -> list[str]:
    return [node.op_type for node in onnx.load(str(file)).graph.node]


@pytest.mark.parametrize("layers", [1, 3])
def test_no_matrix_of_the_deployed_graph_is_made_anew_in_every_call(tmp_path, layers):
    file, *_ = written(tmp_path, model(TransformerConfig(6, 32, layers, 4, 4)))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "as_it_runs.onnx")
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    known = {tensor.name for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type in ("Gemm", "FusedGemm")]
    assert len(products) >= 4 * layers
    assert all(known.issuperset(node.input[1:]) for node in products)


@pytest.mark.parametrize("layers", [1, 3])
def test_what_is_deployed_gives_what_the_model_gives(layers):
    net = model(TransformerConfig(6, 32, layers, 4, 4))
    seen = torch.from_numpy(observations(9, net.layout))
    with torch.no_grad():
        torch.testing.assert_close(Deployed(net)(seen), net.newest(*unpack(net.layout, seen)), rtol=1e-5, atol=1e-5)


def test_what_holds_no_such_model_is_refused(tmp_path):
    with pytest.raises(InputError):
        read_transformer(bundle_file("walk"))
    with pytest.raises(InputError):
        read_transformer(tmp_path / "missing.onnx")
    net = model()
    net.config = TransformerConfig(width=32, layers=1, heads=2, channels=4)  # says less than it is
    with pytest.raises(InputError):
        read_transformer(written(tmp_path, net)[0])


@pytest.mark.parametrize(
    "said",
    [{"width": 4 * 10**8}, {"width": 4 * 10**15}, {"layers": 10**9}, {"width": "wide"}, {"hidden": 3}, {"more": 1}],
)
def test_what_a_bundle_says_of_its_network_is_believed_only_where_it_can_be(tmp_path, said):
    file, _, net = written(tmp_path)
    other, again = tmp_path / "other.onnx", tmp_path / "again.onnx"
    rewrite(file, other, provenance={"network": {**net.config.to_dict(), **said}})
    with pytest.raises(InputError, match="other.onnx"):
        read_transformer(other)
    export(ExportOptions(other, again))
    assert operations(again) == operations(other), "its graph stays as it is"


def test_an_existing_bundle_is_not_overwritten(tmp_path):
    file, _, net = written(tmp_path)
    with pytest.raises(InputError, match="--force"):
        written(tmp_path, net)
    assert Bundle.load(file).metadata.skill == "generalist"


def sensors(worlds: int, seed: int) -> obs.Sensors:
    rng = np.random.default_rng(seed)
    quat = np.tile(np.array([1.0, 0, 0, 0], np.float32), (worlds, 1))
    robot = default_robot()
    joints = robot.default_pose + 0.1 * rng.standard_normal((worlds, 12))
    return obs.Sensors(quat, rng.standard_normal((worlds, 3)), joints, rng.standard_normal((worlds, 12)))


def test_the_robots_memory_gives_the_model_its_window(tmp_path):
    """`Policy` keeps the window: after 20 steps the network has seen the newest 15 frames, oldest first, each with the
    command, clock and last action of its own step."""
    file, _, net = written(tmp_path)
    bundle = Bundle.load(file)
    policy, robot = Policy(bundle, worlds=2), default_robot()
    heights = np.zeros((2, LAYOUT.height_size), np.float32)
    frames, last, phase, drive = [], np.zeros((2, 12), np.float32), np.zeros(2, np.float32), np.zeros(2, np.float32)
    for step in range(20):
        command = np.tile(np.array([0.5 + 0.01 * step, 0.0, 0.1], np.float32), (2, 1))
        reading = sensors(2, step)
        targets = policy.step(reading, command, heights)
        phase = (phase + 0.02 * np.clip(2.5 + drive, 1.5, 4.5)) % 1.0 if step else phase
        clock = np.stack([np.sin(2 * np.pi * phase), np.cos(2 * np.pi * phase)], 1)
        frames.append(np.concatenate([obs.frame(np, robot, reading, last), command, clock], 1))
        shown = frames[-15:] if len(frames) >= 15 else [frames[0]] * (15 - len(frames)) + frames
        with torch.no_grad():
            seen = torch.from_numpy(np.stack(shown, 1).astype(np.float32))
            action = net.newest(seen, torch.zeros(2, LAYOUT.height_size)).numpy()
        action = np.clip(action, -4.0, 4.0)
        last, drive = action[:, :12], action[:, 12]
        wanted = np.clip(robot.default_pose + 0.45 * last, robot.joint_lower, robot.joint_upper)
        assert targets == pytest.approx(wanted, abs=2e-4), step


def test_a_resting_command_stops_the_clock_the_policy_drives(tmp_path):
    policy = Policy(Bundle.load(written(tmp_path)[0]), worlds=1)
    heights, walk = np.zeros((1, LAYOUT.height_size), np.float32), np.array([[1.0, 0, 0]], np.float32)
    for step in range(5):
        policy.step(sensors(1, step), walk, heights)
    assert policy.phase[0] > 0
    policy.step(sensors(1, 9), np.zeros((1, 3), np.float32), heights)
    assert policy.phase[0] == 0.0


def test_mixed_precision_gives_nearly_the_same_actions_and_gradients():
    net, (frames, heights) = model(), window()
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            actions = net(frames, heights)
        assert actions.dtype == torch.float32
        net.zero_grad()
        actions.square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    exact, mixed = gradients
    assert not torch.equal(exact, mixed)
    assert torch.nn.functional.cosine_similarity(exact, mixed, 0) > 0.999
