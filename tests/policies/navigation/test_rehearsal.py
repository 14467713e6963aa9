"""What a rehearsal makes of a route: a robot that answers as the model does stays on it."""

import numpy as np
import pytest
from kinematic import DT

from policies.navigation.navigator import course_navigator
from policies.navigation.paces import Paces
from policies.navigation.path import MotionLimits
from policies.navigation.rehearsal import MOST, MOST_TURN, errors, rehearse, rehearsed
from policies.navigation.response import ModelledWalker, Response, response_beside
from policies.navigation.route_cache import planned
from sim.course.description import official
from sim.errors import InputError
from sim.planar import to_world
from sim.robots.description import default_robot

COURSE, RESPONSE = official(), Response.first_order(DT, (0.22, 0.22, 0.08))


@pytest.fixture(scope="module")
def route():
    return planned(COURSE, default_robot().footprint, ("walk", "climb", "jump"), Paces())


def sizes(navigator, response):
    """Root mean squares beside the path (m) and of the heading (rad) among the poles."""
    off = errors(navigator, response)[navigator.path.s < 6.0]
    return np.sqrt([(off[:, :2] ** 2).sum(1).mean(), (off[:, 2] ** 2).mean()])


def test_what_is_off_in_the_model_is_made_up_for(route):
    plain, taught = course_navigator(COURSE, route), rehearsed(COURSE, route, MotionLimits(), RESPONSE)
    before, after = sizes(plain, RESPONSE), sizes(taught, RESPONSE)
    assert (after < before / 3).all()
    slower = Response.first_order(DT, (0.27, 0.27, 0.11))
    assert (sizes(taught, slower) < sizes(plain, slower) / 1.5).all(), "a robot that is not quite the model gains too"


def test_speed_that_the_walker_lacks_is_asked_for_beforehand(route):
    """A walker that blurs speeding up and braking needs less time where that is foreseen, and none of the precision."""

    def seconds(navigator):
        walker, pose = ModelledWalker(RESPONSE), np.array([*navigator.path.xy[0], navigator.path.yaw[0]])
        for step in range(2000):
            command = navigator.step(pose, DT)
            if navigator.s > 6.0:
                return step * DT
            forward, left, around = walker.step(command.velocity).tolist()
            x, y = to_world(forward, left, pose[2] + around * DT / 2)
            pose = pose + DT * np.array([x, y, around])
        raise AssertionError("it never came there")

    plain, quicker = (rehearsed(COURSE, route, MotionLimits(), RESPONSE, made_up) for made_up in (0.0, 0.5))
    planned_time = float(np.interp(6.0, plain.path.s, plain.path.time))
    assert seconds(quicker.copy()) - planned_time < 0.6 * (seconds(plain.copy()) - planned_time)
    assert (sizes(quicker, RESPONSE) < 2 * sizes(plain, RESPONSE)).all()


def test_where_the_walker_does_not_drive_nothing_is_added(route):
    navigator = rehearsed(COURSE, route, MotionLimits(), RESPONSE)
    index = np.minimum(np.searchsorted(navigator.path.marks, navigator.path.s + 1e-9), len(route) - 1)
    walks = np.array([w.skill == "walk" for w in route])[index]
    assert (navigator.ahead_of_errors[~walks] == 0).all()
    assert (np.abs(navigator.ahead_of_errors).max(0) <= [MOST, MOST, MOST_TURN]).all()


def test_copies_start_anew_and_share_what_was_learned(route):
    first, second = (rehearsed(COURSE, route, MotionLimits(), RESPONSE) for _ in range(2))
    for _ in range(10):
        first.step(COURSE.start, DT)
    assert second.command.tolist() == [0, 0, 0] and first.command.any()
    np.testing.assert_array_equal(first.ahead_of_errors, second.ahead_of_errors)
    again = course_navigator(COURSE, route)
    rehearse(again, RESPONSE)
    np.testing.assert_array_equal(first.ahead_of_errors, again.ahead_of_errors)


def test_a_modelled_walker_is_its_table():
    response = Response(DT, (0.0, 0.25, 0.5, 1.0), (0.0, 0.0, 0.5, 0.9), (0.5, 1.0, 1.0, 1.0))
    walker = ModelledWalker(response)
    made = np.array([walker.step((2.0, -1.0, 1.0)) for _ in range(6)])
    np.testing.assert_allclose(made[:4, 0], 2 * np.array(response.forward))
    np.testing.assert_allclose(made[:4, 1], -np.array(response.sideways))
    np.testing.assert_allclose(made[:, 2], [0.5, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(made[5], [2.0, -0.9, 1.0])
    assert response.lag[2] == pytest.approx(DT)


def test_tables_are_kept_beside_their_policy(tmp_path):
    bundle = tmp_path / "walk.onnx"
    assert response_beside(bundle, DT) == Response.first_order(DT)
    RESPONSE.write(tmp_path / "walk.response.json")
    read = response_beside(bundle, DT)
    np.testing.assert_allclose(read.impulse, RESPONSE.impulse, atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "[]",
        '{"period": 0.02}',
        '{"period": 0.02, "forward": [1], "sideways": [1, 1], "yaw": [1]}',
        '{"period": 0.02, "forward": [NaN], "sideways": [1], "yaw": [1]}',
        '{"period": 0, "forward": [1], "sideways": [1], "yaw": [1]}',
        '{"period": 0.02, "forward": [0], "sideways": [1], "yaw": [1]}',
    ],
)
def test_what_is_no_table_is_refused(tmp_path, wrong):
    (tmp_path / "walk.response.json").write_text(wrong)
    with pytest.raises(InputError):
        response_beside(tmp_path / "walk.onnx", DT)
