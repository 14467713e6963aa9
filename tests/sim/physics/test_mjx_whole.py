"""MJX with a whole robot on a course, as runs are judged, against the C engine."""

import numpy as np
import pytest

from sim.course.scene import MOST_CONTACTS, SolverOptions, board_sensors, build
from sim.course.terrain import Block, Terrain
from sim.physics.cpu import CpuPhysics
from sim.physics.mjx_whole import WholeMjx
from sim.robots.description import default_robot

ROBOT = default_robot()
BOARD = Block("board", (3.0, 0.0), (1.0, 1.0), top=0.02)
MODEL = build(
    ROBOT, Terrain((Block("table", (0.0, 0.0), (1.0, 1.0), top=0.25),)), boards=(BOARD,),
    options=SolverOptions(timestep=0.002, iterations=50, ls_iterations=50),
)  # fmt: skip
STEPS, SUBSTEPS = 16, 4


@pytest.fixture(scope="module")
def both() -> dict[str, list[np.ndarray]]:
    """Engine -> places, speeds and sensors of three worlds: on a table, on the board, and one that fell on its back."""
    height = ROBOT.standing_height
    qpos = np.zeros((3, MODEL.nq))
    qpos[:, 3], qpos[:, 7:] = 1.0, ROBOT.default_pose
    qpos[:, :3] = [[0.0, 0.0, 0.25 + height], [3.0, 0.0, 0.02 + height], [0.0, 3.0, 0.12]]
    qpos[2, 3:7] = [0.0, 1.0, 0.0, 0.0]
    targets, found = np.tile(ROBOT.default_pose, (3, 1)), {}
    delay = np.array([0, 1, 2])
    for name, physics in (("cpu", CpuPhysics(MODEL, 3, 1)), ("mjx", WholeMjx(MODEL, 3))):
        physics.reset(np.ones(3, bool), qpos, np.zeros((3, MODEL.nv)))
        before = targets
        for k in range(STEPS):
            asked = targets + 0.1 * np.sin(k / 3.0)
            physics.step(asked, SUBSTEPS, before, delay)
            before = asked
        found[name] = [np.array(part) for part in (physics.qpos, physics.qvel, physics.sensordata)]
    return found


def test_a_robot_moves_as_in_the_c_engine(both):
    (places, speeds, _), (theirs, their_speeds, _) = both["mjx"], both["cpu"]
    np.testing.assert_allclose(places[:2], theirs[:2], atol=2e-3)
    np.testing.assert_allclose(speeds[:2], their_speeds[:2], atol=0.1)
    np.testing.assert_allclose(places[2, :3], theirs[2, :3], atol=0.02)  # a back on the ground is a box that tips


def test_what_touches_is_felt_as_there(both):
    """The board by who stands on it, the trunk by who lies on it, and neither by the others."""
    board = MODEL.sensor(board_sensors(1)[0]).adr[0]
    trunk = [int(MODEL.sensor(part).adr[0]) for part in ROBOT.trunk_geoms]
    for name in ("cpu", "mjx"):
        sensors = both[name][2]
        assert (sensors[:, board] > 0).tolist() == [False, True, False], name
        assert (sensors[:, trunk].max(1) > 0).tolist() == [False, False, True], name


def test_more_contacts_than_a_robot_can_have_are_no_row_of_the_solver():
    """All that any two geoms could have made a course too slow to be waited for."""
    engine = WholeMjx(MODEL, 1)._mjx.engine  # pyright: ignore[reportPrivateUsage]
    assert int(engine.data._impl.contact.dist.shape[0]) <= MOST_CONTACTS
