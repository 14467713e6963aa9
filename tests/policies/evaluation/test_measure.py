"""What `barkour robot measure` finds, on robots of which it is known."""

from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

from policies.bundle.reader import Bundle
from policies.bundle.shipped import bundle_file
from policies.evaluation import measure as measuring
from policies.evaluation.measure import RobotMeasured, at_rest, measure, outline, target_velocity
from policies.evaluation.options import RobotMeasureOptions
from policies.evaluation.response import identify
from policies.navigation.response import SUFFIX, response_beside
from sim.course.scene import robot_spec
from sim.errors import InputError
from sim.robots.description import default_robot, robot_by_name

ROBOT, GO2 = default_robot(), robot_by_name("unitree_go2")


@pytest.fixture(scope="module")
def rest() -> dict:
    return at_rest(GO2)


def test_a_robot_stands_as_described(rest):
    assert rest["stands"] and rest["rises"] and rest["mass_kg"] == pytest.approx(15.017)
    assert 0 < rest["holding_torque_share"] < 0.5 and rest["sag_rad"] > 0
    for name, described in rest["described_outline_m"].items():
        assert rest["outline_m"][name] == pytest.approx(described, abs=0.01), name


@pytest.mark.parametrize("wrong", [{"kp": GO2.kp / 30, "kd": GO2.kd / 30}, {"standing_height": 0.36}])
def test_a_robot_that_does_not_is_said_so(rest, wrong):
    found = RobotMeasured.of({"robot": "weak", **at_rest(replace(GO2, **wrong))})
    assert not found.stands and found.status == 1 and "\n" not in found.failure
    assert RobotMeasured.of({"robot": "go2", **rest}).status == 0


def test_the_outline_is_where_the_colliders_end():
    """Found again by throwing points at the colliders' surfaces."""
    model = robot_spec(GO2).compile()
    data = mujoco.MjData(model)
    data.qpos[:7], data.qpos[7:] = (0.3, -0.2, 0.5, 0.8, 0.1, -0.2, 0.55), GO2.default_pose
    mujoco.mj_forward(model, data)
    lower, upper = outline(model, data, GO2)
    base, corners = data.body("base"), []
    for g in range(model.ngeom):
        size, turn = model.geom_size[g], data.geom_xmat[g].reshape(3, 3)
        if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_BOX:
            points = np.array(np.meshgrid(*([-1, 1],) * 3)).reshape(3, -1).T * size
        else:
            rng = np.random.default_rng(g)
            sphere = rng.standard_normal((4000, 3))
            points = size[0] * sphere / np.linalg.norm(sphere, axis=1, keepdims=True)
            if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_CAPSULE:
                points[:, 2] += size[1] * np.sign(points[:, 2])
        corners.append((data.geom_xpos[g] + points @ turn.T - base.xpos) @ base.xmat.reshape(3, 3))
    corners = np.concatenate(corners)
    np.testing.assert_allclose(corners.min(0), lower, atol=2e-3)
    np.testing.assert_allclose(corners.max(0), upper, atol=2e-3)


def test_the_target_velocity_is_the_papers_for_its_robot_and_grows_with_the_root_of_the_size():
    assert target_velocity(ROBOT) == pytest.approx(1.69)
    higher = replace(ROBOT, standing_height=ROBOT.standing_height + measuring.hip_height(ROBOT))
    assert target_velocity(higher) == pytest.approx(1.69 * 2**0.5)


def test_a_walker_is_measured(monkeypatch):
    """The shipped one follows what it was trained on; one that hears nothing follows nothing."""
    monkeypatch.setattr(measuring, "LEVELS", np.array([0.25, 0.5]))
    bundle = Bundle.load(bundle_file("walk"))
    found = measuring.paces(bundle, 2, 0)
    for name, speed in found["speeds"].items():
        assert speed["largest"] == pytest.approx(0.5 * speed["asked"]), name
        assert speed["made"] == pytest.approx(speed["largest"], rel=0.3)
    assert all(change["acceleration"] > 0.5 and change["lag"] > 0 for change in found["changes"].values())

    class Deaf(measuring.Walker):
        def step(self, command):
            super().step(0.0 * command)

    monkeypatch.setattr(measuring, "Walker", Deaf)
    still = measuring.paces(bundle, 1, 0)
    assert {speed["largest"] for speed in still["speeds"].values()} == {0.0} and still["changes"] == {}


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match="unknown robot"):
        measure(RobotMeasureOptions("nobody"))
    with pytest.raises(InputError, match="is for the robot barkour_v0"):
        measure(RobotMeasureOptions("unitree_go2", Path(bundle_file("walk"))))


def test_a_response_is_identified_and_kept_beside_the_policy(tmp_path):
    file = tmp_path / "walk.onnx"
    file.write_bytes(bundle_file("walk").read_bytes())
    bundle = Bundle.load(file)
    table, said = identify(bundle, robots=5, seconds=8.0, seed=1)
    assert said["fallen"] <= 1 and min(v for k, v in said.items() if k.startswith("explained")) > 0.6
    assert (table.lag > 0.03).all() and table.lag[2] < table.lag[0], "a body turns sooner than it changes its speed"
    assert 0.7 < table.forward[-1] < 1.3
    table.write(file.with_suffix(SUFFIX))
    (tmp_path / "none").mkdir()
    assert response_beside(file, 0.02) == table != response_beside(tmp_path / "none" / "walk.onnx", 0.02)
    with pytest.raises(InputError, match="at least 4"):
        identify(bundle, robots=3)


def test_a_response_that_could_not_be_kept_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "at_rest", lambda _: pytest.fail("it had begun"))
    (tmp_path / f"walk{SUFFIX}").mkdir()
    with pytest.raises(InputError, match="folder"):
        measure(RobotMeasureOptions(ROBOT.name, policy=tmp_path / "walk.onnx", response=True))
