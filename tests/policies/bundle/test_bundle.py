"""Policy bundles: what is refused and how, what survives the file exactly, and the memory of a running policy.

The networks here are single matrices written straight into ONNX, so that every number is known without the exporter.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from linear_bundles import (
    BIAS,
    GAIT,
    GOOD,
    LAYOUT,
    PARTS,
    ROBOT,
    SIZE,
    WEIGHTS,
    altered,
    metadata,
    network,
    refusal,
    write,
)

from policies.bundle import trial
from policies.bundle.reader import KEY, Bundle, FixedBatch, Metadata, Policy
from sim.errors import InputError
from sim.observation import Grid, Layout, Sensors


@pytest.fixture(autouse=True)
def untried(monkeypatch):
    """Networks are run by this process at once: `test_whole_files` has what a child process finds out."""
    monkeypatch.setattr(trial, "try_out", lambda content: None)
    monkeypatch.setenv(trial.VARIABLE, "")


@pytest.fixture()
def good(tmp_path) -> Path:
    return write(tmp_path / "good.onnx", WEIGHTS, BIAS, GOOD.to_json())


# --- a good bundle ----------------------------------------------------------------------------------------------------


def test_a_bundle_runs_its_network_and_says_what_it_was_told(good):
    bundle = Bundle.load(str(good))
    rows = np.random.default_rng(2).normal(0, 1, (5, SIZE)).astype(np.float32)
    action = bundle(rows)
    assert action.shape == (5, 12) and action.dtype == np.float32
    np.testing.assert_allclose(action, rows.astype(float) @ WEIGHTS + BIAS, atol=1e-5)
    assert bundle.layout == LAYOUT and bundle.gait == GAIT and bundle.robot.name == "barkour_v0"
    assert bundle.metadata == GOOD


def test_metadata_survive_the_file_to_the_last_bit():
    wild = replace(GOOD, action_scale=0.1 + 0.2, kp=1 / 3, normalizer={"mean": [1e-300, np.pi], "std": [5e20, 1.0]})
    assert Metadata.from_json(wild.to_json()) == wild
    assert wild.to_json() == Metadata.from_json(wild.to_json()).to_json()


def test_the_description_is_json_and_names_every_part_of_the_input(good):
    described = json.loads(json.dumps(Bundle.load(good).describe()))
    assert described["observation_size"] == SIZE and described["golden_vectors"] == 4
    assert described["bytes"] == good.stat().st_size
    assert described["inputs"]["command"] == [84, 87] and described["inputs"]["heights_around"] == [89, 93]
    assert described["joint_names"] == list(ROBOT.joint_names)


# --- files that are no bundle -----------------------------------------------------------------------------------------


def test_a_missing_file_or_a_folder_is_refused(tmp_path):
    assert "there is no policy file" in refusal(tmp_path / "none.onnx")
    assert "there is no policy file" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"not a network\n" * 50, bytes(range(256)) * 20, b"\x08\x09"])
def test_files_that_are_no_networks_are_refused(tmp_path, content):
    file = tmp_path / "foreign.onnx"
    file.write_bytes(content)
    refusal(file)


@pytest.mark.parametrize("keep", [0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999])
def test_a_cut_off_bundle_is_refused_wherever_it_was_cut(good, keep):
    content = good.read_bytes()
    good.write_bytes(content[: min(int(keep * len(content)), len(content) - 1)])
    refusal(good)


def test_a_network_without_our_metadata_is_refused(tmp_path):
    file = write(tmp_path / "foreign.onnx", WEIGHTS, BIAS, None)
    assert "no policy bundle" in refusal(file)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not JSON"),
        ("[1, 2]", "not a JSON object"),
        ("{}", "schema version is None"),
        ('{"schema": 3}', "schema version is 3, this code reads 1 and 2"),
        ('{"schema": 1}', "lacks 'action_limit'"),
    ],
)
def test_metadata_of_another_kind_are_refused(tmp_path, text, message):
    assert message in refusal(write(tmp_path / "odd.onnx", WEIGHTS, BIAS, text))


@pytest.mark.parametrize("key", sorted(set(asdict(GOOD)) - {"schema", "target_step"}))
def test_each_missing_key_is_named(tmp_path, key):
    fields = {k: v for k, v in asdict(GOOD).items() if k != key}
    assert f"lacks '{key}'" in refusal(write(tmp_path / "lacking.onnx", WEIGHTS, BIAS, json.dumps(fields)))


def test_an_unknown_key_is_named(tmp_path):
    assert "unknown key 'colour'" in refusal(altered(tmp_path, colour="red"))


@pytest.mark.parametrize("key", sorted(set(asdict(GOOD)) - {"skill", "provenance", "normalizer", "target_step"}))
@pytest.mark.parametrize("junk", [None, 3, "x", [], {}, [["x"]], {"observation": 1, "action": 2}], ids=str)
def test_nonsense_in_any_field_that_running_needs_is_refused_in_one_line(tmp_path, key, junk):
    refusal(altered(tmp_path, **{key: junk}))


@pytest.mark.parametrize("step", ["x", [], {}, [0.5], 0, -0.5, 10.5, True])
def test_a_step_of_the_targets_that_none_can_have_is_refused(tmp_path, step):
    assert "target_step" in refusal(altered(tmp_path, target_step=step))


# --- bundles of another robot, layout or network ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, value",
    [
        ("joint_names", list(reversed(ROBOT.joint_names))),
        ("default_pose", [0.0, 0.5, 1.01] * 4),
        ("joint_lower", [-9.0] * 12),
        ("joint_upper", [9.0] * 12),
        ("action_scale", 0.25),
        ("action_limit", 5.0),
        ("kp", 20.0),
        ("kd", 0.5),
        ("torque_limit", 12.0),
        ("control_period", 0.01),
        ("frames", {**GOOD.frames, "quaternion": "x, y, z, w; world from base"}),
    ],
)
def test_a_bundle_for_another_robot_is_refused_by_the_field_that_differs(tmp_path, key, value):
    message = refusal(altered(tmp_path, **{key: value}))
    assert f"its {key} is" in message and "this robot's is" in message


def test_a_bundle_for_an_unknown_robot_is_refused(tmp_path):
    assert "unknown robot 'spot'" in refusal(altered(tmp_path, robot="spot"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"size": 12}, "differs in 'size'"),
        ({"history": 10}, "differs in 'history'"),
        ({"command_scale": [2.0, 2.0, 0.25]}, "differs in 'command_scale'"),
        ({"frames": [0, 60]}, "from 0 to 59"),
        (Layout(12, frames=(0,), grids=LAYOUT.grids).to_dict(), f"its observation has {SIZE} numbers, the layout says"),
    ],
)
def test_a_bundle_with_another_layout_is_refused(tmp_path, changes, message):
    assert message in refusal(altered(tmp_path, layout={**LAYOUT.to_dict(), **changes}))


def test_a_bundle_with_another_gait_is_refused(tmp_path):
    assert "gait needs the keys" in refusal(altered(tmp_path, gait={**GAIT.to_dict(), "bounce": 1}))


@pytest.mark.parametrize(
    "key, value",
    [
        ("frequency", "fast"),
        ("frequency", None),
        ("push", float("nan")),
        ("phase_offsets", [0.0, 0.5]),
        ("phase_offsets", "trot"),
        ("standing_speed", []),
    ],
)
def test_a_gait_that_cannot_run_is_refused(tmp_path, key, value):
    refusal(altered(tmp_path, gait={**GAIT.to_dict(), key: value}))


def test_networks_of_another_shape_are_refused(tmp_path):
    text = GOOD.to_json()
    narrow = write(tmp_path / "narrow.onnx", WEIGHTS[:-1], BIAS, text)
    assert f"its observation has {SIZE - 1} numbers, the layout says {SIZE}" in refusal(narrow)
    short = write(tmp_path / "short.onnx", WEIGHTS[:, :11], BIAS[:11], text)
    assert "its action has 11 numbers, the layout says 12" in refusal(short)
    renamed = write(tmp_path / "renamed.onnx", WEIGHTS, BIAS, text, names=("obs", "action"))
    assert "one input 'observation' and one output 'action'" in refusal(renamed)
    two = write(tmp_path / "two.onnx", WEIGHTS, BIAS, text, extra=True)
    assert "one input 'observation' and one output 'action'" in refusal(two)


def test_a_changed_network_is_found_out_by_the_golden_vectors(tmp_path):
    changed = WEIGHTS.copy()
    changed[5, 3] += 0.01
    message = refusal(write(tmp_path / "changed.onnx", changed, BIAS, GOOD.to_json()))
    shift = 0.01 * max(abs(row[5]) for row in GOOD.golden["observation"])
    assert f"differs from its golden vectors by {shift:.2g}"[:-1] in message


@pytest.mark.parametrize(
    "golden",
    [
        {"observation": [], "action": []},
        {"observation": GOOD.golden["observation"], "action": GOOD.golden["action"][::-1]},
        {"observation": [row[:-1] for row in GOOD.golden["observation"]], "action": GOOD.golden["action"]},
        {"observation": GOOD.golden["observation"], "action": [row[:-1] for row in GOOD.golden["action"]]},
        {"observation": [[float("nan")] * SIZE], "action": [[0.0] * 12]},
        {"observation": GOOD.golden["observation"]},
        {"observation": [[1.0], [1.0, 2.0]], "action": GOOD.golden["action"]},
    ],
    ids=["none", "shuffled", "narrow", "short", "nan", "no actions", "ragged"],
)
def test_unusable_golden_vectors_are_refused(tmp_path, golden):
    refusal(altered(tmp_path, golden=golden))


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    broken = WEIGHTS.copy()
    broken[0, 0] = np.nan
    refusal(write(tmp_path / "broken.onnx", broken, BIAS, GOOD.to_json()))


def test_no_bit_flip_in_the_weights_that_matters_goes_unnoticed(good):
    """Flips the highest exponent bits of single weights in the file."""
    content = good.read_bytes()
    start = content.index(WEIGHTS.tobytes())
    for i in (0, 100, WEIGHTS.size - 1):
        flipped = bytearray(content)
        flipped[start + 4 * i + 3] ^= 0x40
        good.write_bytes(bytes(flipped))
        refusal(good)


# --- a running policy -------------------------------------------------------------------------------------------------


def sensors(worlds: int = 1, seed: int = 3) -> Sensors:
    rng = np.random.default_rng(seed)
    quat = rng.normal(size=(worlds, 4))
    quat /= np.linalg.norm(quat, axis=-1, keepdims=True)
    joints = ROBOT.default_pose + rng.uniform(-0.3, 0.3, (worlds, 12))
    return Sensors(*(a.astype(np.float32) for a in (quat, rng.normal(size=(worlds, 3)), joints, joints * 3)))


def policy_of(folder: Path, weights: np.ndarray, bias: np.ndarray, worlds: int = 1, layout: Layout = LAYOUT) -> Policy:
    text = metadata(weights, bias, layout).to_json()
    return Policy(Bundle.load(write(folder / "policy.onnx", weights, bias, text)), worlds)


REST = np.zeros((1, 3), np.float32)
LEVEL = np.zeros((1, LAYOUT.height_size), np.float32)


def test_a_standing_policy_moves_its_joints_by_the_scaled_and_clipped_action(tmp_path):
    bias = np.linspace(-1, 1, 12).astype(np.float32)
    bias[4] = 50.0
    policy = policy_of(tmp_path, 0 * WEIGHTS, bias)
    target = policy.step(sensors(), REST, LEVEL)
    expected = ROBOT.default_pose + 0.3 * np.minimum(bias, 4.0)
    np.testing.assert_allclose(target[0], np.clip(expected, ROBOT.joint_lower, ROBOT.joint_upper), atol=1e-6)
    np.testing.assert_allclose(policy.last_action[0], np.minimum(bias, 4.0), atol=1e-6)


def test_targets_move_no_further_than_the_policys_step_and_it_knows(tmp_path):
    text = replace(metadata(WEIGHTS, BIAS, LAYOUT), target_step=0.05).to_json()
    bundle = Bundle.load(write(tmp_path / "slow.onnx", WEIGHTS, BIAS, text))
    free = Bundle.load(write(tmp_path / "free.onnx", WEIGHTS, BIAS, metadata(WEIGHTS, BIAS, LAYOUT).to_json()))
    assert bundle.describe()["target_step"] == 0.05 and free.describe()["target_step"] is None
    policy, other = Policy(bundle, 2), Policy(free, 2)
    heights = np.zeros((2, LAYOUT.height_size), np.float32)
    command = np.array([[0.5, 0.2, 0.3], [0, 0, 0]], np.float32)
    last = policy.step(sensors(2), command, heights)
    np.testing.assert_array_equal(last, other.step(sensors(2), command, heights))  # nothing before it
    for seed in range(10):
        following = policy.step(sensors(2, seed), command, heights)
        steps = np.abs(following - last)
        assert 0.0499 < steps.max() <= 0.05 + 1e-6
        last = following
        asked = ROBOT.default_pose + 0.3 * policy.last_action[1]  # a robot that stands: no clock
        np.testing.assert_allclose(np.clip(asked, ROBOT.joint_lower, ROBOT.joint_upper), following[1], atol=1e-5)
    policy.reset(np.array([True, False]))
    following = policy.step(sensors(2, 50), command, heights)
    assert np.abs(following - last)[0].max() > 0.05 and np.abs(following - last)[1].max() <= 0.05 + 1e-6
    applied = np.tile(ROBOT.default_pose, (2, 1)).astype(np.float32)
    policy.targets = applied
    assert np.abs(policy.step(sensors(2, 51), command, heights) - applied).max() <= 0.05 + 1e-6


def test_the_gait_clock_of_the_bundle_is_added_and_starts_with_the_first_step(tmp_path):
    """On a grid that sees a step of 4 cm, swing legs fold and stance legs extend, from phase 0 on."""
    layout = Layout(12, frames=(0,), grids=(Grid("line", (0.0, 0.1, 0.2, 0.3), (0.0,)),))
    weights, bias = network(layout)
    policy = policy_of(tmp_path, 0 * weights, 0 * bias, layout=layout)
    command = np.array([[1.0, 0, 0]], np.float32)
    heights = np.array([[0, 0, 0.2, 0.2]], np.float32)  # 5 per metre
    hips = []
    for _ in range(20):  # one cycle of 2.5 Hz
        target = policy.step(sensors(), command, heights)[0] - ROBOT.default_pose
        hips.append(target[[1, 4]])  # front left and hind left
    wave = np.sin(2 * np.pi * (np.arange(20) * 0.02 * 2.5)[:, None] + [0, np.pi])
    expected = np.where(wave > 0, GAIT.push, GAIT.lift_per_relief * 0.04) * wave
    np.testing.assert_allclose(hips, expected, atol=1e-5)


def test_the_network_sees_the_frames_of_the_last_steps_and_its_own_actions(tmp_path):
    """A network that adds the previous frame's joint offsets and the newest frame's last action into its output."""
    weights = np.zeros((SIZE, 12), np.float32)
    previous, newest = PARTS["frame_1"].start + 6, PARTS["frame_0"].start + 30
    weights[previous : previous + 12] += np.eye(12)
    weights[newest : newest + 12] += np.eye(12)
    policy = policy_of(tmp_path, weights, np.zeros(12, np.float32))
    readings = [sensors(seed=s) for s in range(4)]
    offsets = [r.joint_position[0] - ROBOT.default_pose for r in readings]
    actions = []
    for reading in readings:
        policy.step(reading, REST, LEVEL)
        actions.append(policy.last_action[0].copy())
    expected = [offsets[0]]  # at first the whole history is the first frame
    for k in range(1, 4):
        expected.append(offsets[k - 1] + expected[-1])
    np.testing.assert_allclose(actions, expected, atol=1e-5)


def test_command_and_heights_reach_their_places(tmp_path):
    weights = np.zeros((SIZE, 12), np.float32)
    weights[PARTS["command"], :3] = np.eye(3)
    weights[PARTS["heights_around"], 3:7] = np.eye(4)
    policy = policy_of(tmp_path, weights, np.zeros(12, np.float32))
    policy.step(sensors(), np.array([[0.5, -0.25, 1.0]]), np.array([[0.1, 0.2, 0.3, 0.4]], np.float32))
    np.testing.assert_allclose(policy.last_action[0], [0.5, -0.25, 1.0, 0.1, 0.2, 0.3, 0.4] + [0] * 5, atol=1e-6)


def test_heights_are_looked_up_around_each_robot(tmp_path):
    policy = policy_of(tmp_path, WEIGHTS, BIAS, worlds=2)
    xy, z, yaw = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([0.2, 0.3]), np.array([0.0, np.pi / 2])
    heights = policy.heights_at(lambda x, y: 0.01 * x + 0.02 * y, xy, z, yaw)
    # grid points (0, -0.1) (0, 0.1) (0.3, -0.1) (0.3, 0.1), turned by the heading: world (x, y)
    points = [[(1, 1.9), (1, 2.1), (1.3, 1.9), (1.3, 2.1)], [(0.1, 0), (-0.1, 0), (0.1, 0.3), (-0.1, 0.3)]]
    ground = np.array(points) @ [0.01, 0.02]
    np.testing.assert_allclose(heights, 5 * (ground - z[:, None] + 0.2), atol=1e-6)


def test_a_policy_without_terrain_takes_no_heights(tmp_path):
    layout = Layout(12, frames=(0,))
    policy = policy_of(tmp_path, *network(layout), worlds=3, layout=layout)
    heights = policy.heights_at(lambda x, y: x, np.zeros((3, 2)), np.zeros(3), np.zeros(3))
    assert heights.shape == (3, 0)
    assert policy.step(sensors(3), np.zeros((3, 3)), heights).shape == (3, 12)


def test_robots_beside_each_other_do_not_mix_and_are_reset_alone(tmp_path):
    many, alone = (policy_of(tmp_path, WEIGHTS, BIAS, worlds=n) for n in (3, 1))
    command = np.array([[0.5, 0, 0.2], [0, 0, 0], [-1.0, 0.3, 0]], np.float32)
    heights = np.random.default_rng(4).normal(size=(3, 4)).astype(np.float32)
    for k in range(8):
        reading = sensors(3, seed=k)
        if k == 5:  # the last robot begins anew
            many.reset(np.array([False, False, True]))
            alone.reset()
        targets = many.step(reading, command, heights)
        single = alone.step(Sensors(*(a[2:] for a in reading)), command[2:], heights[2:])
        np.testing.assert_allclose(targets[2], single[0], atol=1e-5)
    fresh = policy_of(tmp_path, WEIGHTS, BIAS, worlds=3)
    for k in range(5, 8):
        late = fresh.step(sensors(3, seed=k), command, heights)
    np.testing.assert_allclose(targets[2], late[2], atol=1e-5)  # a reset robot remembers nothing
    assert np.abs(targets[:2] - late[:2]).max() > 1e-3  # the others went on


@pytest.mark.parametrize("name", [*Sensors._fields, "command", "heights"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_input_that_is_not_finite_is_refused_by_name_and_leaves_the_memory_as_it_was(tmp_path, name, value):
    policy, twin = (policy_of(tmp_path, WEIGHTS, BIAS) for _ in range(2))
    given = {"command": np.array([[1.0, 0, 0]], np.float32), "heights": LEVEL}
    for p in (policy, twin):
        p.step(sensors(seed=1), **given)
    bad = {**sensors(seed=2)._asdict(), **given}
    bad[name] = bad[name].copy()
    bad[name][0, 1] = value
    with pytest.raises(InputError, match=f"'{name}' is not finite"):
        policy.step(Sensors(*(bad[field] for field in Sensors._fields)), bad["command"], bad["heights"])
    np.testing.assert_array_equal(policy.step(sensors(seed=2), **given), twin.step(sensors(seed=2), **given))


def test_a_fixed_batch_gives_a_row_the_same_bits_whatever_stands_beside_it(good):
    bundle = FixedBatch(Bundle.load(good))
    rows = np.random.default_rng(5).normal(0, 1, (40, SIZE)).astype(np.float32)
    whole = bundle(rows)
    assert whole.shape == (40, 12)
    np.testing.assert_allclose(whole, rows.astype(float) @ WEIGHTS + BIAS, atol=1e-5)
    for count in (1, 2, 15, 16, 17, 33):
        np.testing.assert_array_equal(bundle(rows[:count]), whole[:count])
    np.testing.assert_array_equal(bundle(rows[7:9]), whole[7:9])


def test_the_file_alone_is_enough(good):
    """What a robot needs is in the one file: the network answers in plain onnxruntime, the rest is its metadata."""
    model = onnx.load(good)
    assert [p.key for p in model.metadata_props] == [KEY]
    assert not any(t.external_data for t in model.graph.initializer)


def test_no_thread_of_the_runtime_calls_home():
    """A robot's process holds the threads that its programs start, and no telemetry."""
    script = "import policies.bundle.reader, os; print(len(os.listdir('/proc/self/task')))"
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=kept | {"OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.stdout == "1\n", done.stderr
