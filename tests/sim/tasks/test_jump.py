"""Jumping: what a board looks like, strides timed to it, what counts as a touch, and how boards widen."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from sim import gait as clocks
from sim import observation as obs
from sim.course.description import official
from sim.course.terrain import PIT_DEPTH, pit
from sim.envs.batched import BatchedEnv
from sim.errors import InputError
from sim.physics.base import PhysicsReading
from sim.robots import gaits
from sim.robots.barkour_v0 import BOUND
from sim.robots.description import default_robot
from sim.robots.gaits import CORNERS, Gait
from sim.tasks import patches
from sim.tasks.boards import ASIDE, GAP, HOLD, MOUNTED, OVER, RUN_UP_RANGE, STOP, TABLE, WIDTHS, Lanes
from sim.tasks.commands import Commands
from sim.tasks.skills import TASKS
from sim.tasks.state import Motion

ROBOT = default_robot()

TASK = TASKS["jump"]()
GROUND = TASK.ground
assert isinstance(GROUND, Lanes)
DT = 0.02


def seen_heights(xp, *arguments):
    return GROUND.heights(xp, ROBOT, TASK.layout, *arguments)


# --- how a board is seen ---------------------------------------------------------------------------------------------


def test_a_pit_has_the_boards_size_and_edges_of_one_cell():
    x = np.linspace(-1, 1, 2001)
    depth = pit(np, x, np.zeros_like(x), 0.25, 0.5)
    assert depth.sum() * 0.001 / PIT_DEPTH == pytest.approx(0.5, abs=1e-3)  # as long as the board, over its middle line
    assert depth[np.abs(x) < 0.2].min() == PIT_DEPTH and depth[np.abs(x) > 0.301].max() == 0
    assert pit(np, np.array(0.25), np.array(0.0), 0.25, 0.5) == pytest.approx(PIT_DEPTH / 2)  # half a cell at an edge
    assert pit(np, np.array(0.0), np.array(0.56), 0.25, 0.5) == 0


def test_the_official_board_is_a_pit_for_grids_with_boards_and_plain_ground_for_others():
    course = official()
    layout = obs.Layout(12, grids=(obs.around(), obs.ahead()))
    xy, yaw = np.array([[2.0, -4.5]]), np.zeros(1)
    heights = obs.terrain_heights(np, TASK.robot, layout, course.height, xy, yaw, np.array([0.2]), 0.0, course.pit)
    around, ahead = heights[0, :50] / obs.HEIGHT_SCALE, heights[0, 50:].reshape(-1, 2) / obs.HEIGHT_SCALE
    assert np.abs(around).max() < 0.002
    x = np.array(obs.ahead().x)
    np.testing.assert_allclose(ahead[(x > 0.56) & (x < 0.94)], -0.4, atol=0.002)
    np.testing.assert_allclose(ahead[((x < 0.39) & (x > -0.3)) | ((x > 1.11) & (x < 1.9))], 0.0, atol=0.002)
    turned = course.changed("jump", board=replace(course.board, yaw=np.pi / 2, center=(2.75, -4.0)))
    assert turned.pit(np.array(2.75), np.array(-4.2)) == pytest.approx(PIT_DEPTH)
    assert turned.pit(np.array(3.35), np.array(-4.0)) == pytest.approx(0)


@pytest.mark.parametrize("height", [0.15, 0.2, 0.25])
@pytest.mark.parametrize("near", [0.3, 0.87, 1.21])
@pytest.mark.parametrize("width", [0.2, 0.5])
def test_the_distance_to_a_board_is_known_to_a_tenth_of_a_cell(height, near, width):
    board = np.array([[near, width, 0, 1, 1, 0]], np.float32)
    for xp in (np, jnp):
        heights = seen_heights(xp, xp.zeros((1, 2)), xp.zeros(1), xp.asarray([height]), 0.01, xp.asarray(board))
        assert float(obs.board_ahead(xp, TASK.layout, heights)[0]) == pytest.approx(near + width / 2, abs=0.012)


@pytest.mark.parametrize("near, width", [(3.0, 0.5), (1.8, 0.5), (-0.9, 0.5), (1.0, 0.0)])
def test_boards_out_of_sight_have_no_distance(near, width):
    board = np.array([[near, width, 0, 1, 1, 0]], np.float32)
    heights = seen_heights(np, np.zeros((1, 2)), np.zeros(1), np.array([0.2]), 0.0, board)
    assert np.isinf(obs.board_ahead(np, TASK.layout, heights)[0])


def test_a_pit_is_no_step_for_the_gait():
    board = np.array([[0.3, 0.5, 0, 1, 1, 0]], np.float32)
    heights = seen_heights(np, np.zeros((1, 2)), np.zeros(1), np.array([0.2]), 0.0, board)
    assert heights.min() < -1 and obs.relief(np, TASK.layout, heights)[0] == 0


# --- strides ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", np.linspace(0, 0.9, 7))
@pytest.mark.parametrize("speed, actual", [(1.5, 1.5), (1.9, 1.7), (2.2, 2.2)])
def test_strides_are_timed_so_that_the_board_is_passed_in_the_locks_phase(phase, speed, actual):
    """A point that moves at nearly the commanded speed towards a board 1.6 m away."""
    distance, phase = 1.6, np.float32(phase)
    command = np.array([speed, 0, 0], np.float32)
    while distance > 0:
        phase = clocks.advance(np, BOUND, phase, command, DT, np.float32(distance))
        distance -= actual * DT
    error = (phase - BOUND.lock_phase + 0.5) % 1.0 - 0.5
    assert abs(error) < 0.1


def test_the_lock_stays_within_its_range_and_leaves_the_clock_alone_without_a_board():
    command = np.tile(np.array([1.9, 0, 0], np.float32), (50, 1))
    phase = np.linspace(0, 0.98, 50, dtype=np.float32)
    free = (clocks.advance(np, BOUND, phase, command, DT, np.full(50, np.inf)) - phase) % 1.0
    np.testing.assert_allclose(free, 1.9 / 0.76 * DT, atol=1e-5)
    locked = (clocks.advance(np, BOUND, phase, command, DT, np.full(50, 0.5)) - phase) % 1.0
    ratio = locked / free
    assert ratio.min() >= 1 - BOUND.lock_range - 1e-3 and ratio.max() <= 1 + BOUND.lock_range + 1e-3
    assert ratio.std() > 0.05
    there = clocks.advance(jnp, BOUND, jnp.asarray(phase), jnp.asarray(command), DT, jnp.full(50, 0.5))
    np.testing.assert_allclose(clocks.advance(np, BOUND, phase, command, DT, np.full(50, 0.5)), there, atol=1e-5)


def test_a_bound_swings_front_legs_together_and_hind_legs_together():
    phases = np.linspace(0, 1, 50, endpoint=False)
    swing = dict(zip(CORNERS, clocks.swing(np, ROBOT, BOUND, phases).T, strict=True))
    np.testing.assert_array_equal(swing["front_left"], swing["front_right"])
    np.testing.assert_array_equal(swing["hind_left"], swing["hind_right"])
    assert np.corrcoef(swing["front_left"], swing["hind_left"])[0, 1] < -0.3


def test_gaits_without_the_newer_keys_are_read_and_malformed_pairs_refused():
    old = {k: v for k, v in Gait().to_dict().items() if k not in gaits.ADDED}
    assert Gait.from_dict(old) == Gait()
    assert Gait.from_dict(BOUND.to_dict()) == BOUND
    for wrong in ({"front": 3}, {"hind": {"push": 1}}, {"frequency_range": [1]}, {"stride": "far"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Gait.from_dict({**BOUND.to_dict(), **wrong})


# --- the task --------------------------------------------------------------------------------------------------------


def with_knees(feet: np.ndarray, above: float = 0.2) -> np.ndarray:
    """Feet `[..., 4, 3]` and the middles of shanks whose knees are straight above them by `above`, `[..., 8, 3]`."""
    return np.concatenate([feet, feet + [0.0, 0.0, above / 2]], -2)


def chances(u: np.ndarray):
    """Numbers `[n, 8]` where a step draws what the board needs."""
    draws = TASK.drawn[1]
    row = np.zeros((len(u), draws.size), np.float32)
    row[:, draws.size - u.shape[1] :] = u
    return draws.of(row)


def at(qpos: np.ndarray) -> Motion:
    """A motion of bases at `qpos` `[n, 19]` that face along their lanes; of the rest nothing is asked."""
    nothing = dict.fromkeys(Motion._fields, np.zeros(len(qpos)))
    return Motion(**{**nothing, "place": qpos[:, :2]})


def judge(feet_x, feet_z, near=1.0, width=0.3, touched=0.0, level=2.0, u=0.9, knees=0.2):
    board = np.array([[near, width, touched, 1.5, 1.5, 0.0]], np.float32)
    state = TASK.begin(np, np.full((1, 72), 0.5, np.float32), np.zeros(1, int), np.array([level], np.float32))[0]
    feet = np.zeros((1, 4, 3))
    feet[0, :, 0], feet[0, :, 2] = feet_x, feet_z
    qpos = np.zeros((1, 19))
    qpos[0, 0] = np.mean(feet_x)
    uniform = np.full((1, 8), u, np.float32)
    return GROUND.follow(np, ROBOT, state._replace(board=board), qpos, with_knees(feet, knees), chances(uniform))


@pytest.mark.parametrize(
    "foot_x, foot_z, touches",
    [
        (1.15, 0.012, True),
        (1.15, 0.03, True),
        (1.15, 0.05, False),
        (0.98, 0.012, False),
        (0.997, 0.012, True),
        (1.304, 0.012, True),
    ],
)
def test_a_touch_is_a_foot_on_the_floor_within_the_board(foot_x, foot_z, touches):
    board, level, touch, cleared, counts = judge([foot_x, 0.6, 0.9, 0.6], [foot_z, 0.012, 0.012, 0.012])
    assert (touch[0] > 0) == touches and board[0, 2] == touches and cleared[0] == 0 and level[0] == 2.0
    assert counts["passed"][0] == 0


@pytest.mark.parametrize("knee, touches", [(0.02, True), (0.04, True), (0.07, False)])
def test_a_knee_as_low_as_the_board_touches_it_too(knee, touches):
    board, _, touch, *_ = judge([1.15, 0.6, 0.9, 0.6], [0.05] * 4, knees=knee - 0.05)
    assert (touch[0] > 0) == touches and board[0, 2] == touches


def test_deeper_touches_cost_more():
    shallow, deep = (judge([x, 0.5, 0.5, 0.5], [0.01] * 4)[2][0] for x in (1.02, 1.15))
    assert deep > shallow > 0


@pytest.mark.parametrize("touched, change", [(0.0, 0.2), (1.0, -0.3)])
def test_a_clean_pass_widens_the_next_board_and_a_touched_one_narrows_it(touched, change):
    board, level, _, cleared, counts = judge([1.4, 1.35, 1.5, 1.35], [0.05] * 4, touched=touched)
    assert level[0] == pytest.approx(2.0 + change) and cleared[0] == counts["clean"][0] == 1 - touched
    assert counts["passed"][0] == 1 and counts["width"][0] == pytest.approx(0.3)
    expected = WIDTHS[0] + (WIDTHS[1] - WIDTHS[0]) * level[0] / (patches.LEVELS - 1)
    assert board[0, 1] == pytest.approx(expected) and board[0, 2] == 0
    assert RUN_UP_RANGE[0] <= board[0, 0] - 1.4 <= RUN_UP_RANGE[1]


def test_a_board_is_passed_only_when_the_last_foot_is_behind_it():
    assert judge([1.6, 1.31, 1.6, 1.6], [0.05] * 4)[4]["passed"][0] == 0


def test_the_jumper_lives_in_its_worlds_and_steers_to_its_line():
    env = BatchedEnv(TASK, 24, seed=1)
    for _ in range(60):
        out = env.step(np.zeros((24, 12), np.float32))
    assert np.isfinite(out.observation).all() and out.privileged.shape == (24, TASK.privileged_size)
    board = np.array([[9.0, 0.3, 0, 1.5, 1.5, 0]] * 3, np.float32)
    offset = np.array([[0, 0.2], [0, 0.0], [0, 0.0]])
    command = GROUND.guide(
        np, np.zeros((3, 3)), Commands(guided=(0.0, 2.0)), np.zeros(3), offset, np.array([0.0, 0.3, 0.0]), board
    )
    assert command[0, 1] < -0.2 and command[1, 2] < -0.5 and command[2] == pytest.approx([1.5, 0, 0], abs=1e-6)


def test_numpy_and_jax_take_the_same_step():
    """Both engines share these lines: an episode's start and everything that follows a step of physics."""
    rng = np.random.default_rng(5)
    n = 16
    u = rng.random((2, n, 72), np.float32)
    kind, level = np.arange(n, dtype=np.int32) % len(GROUND.kinds), np.linspace(0, 5, n, dtype=np.float32)
    feet = rng.uniform(-0.3, 0.3, (n, 4, 3)).astype(np.float32)
    feet[:, :, 0] += rng.uniform(0, 3, (n, 1))
    feet[:, :, 2] = rng.uniform(0, 0.05, (n, 4))
    sensors = rng.uniform(0, 3, (n, 17)).astype(np.float32)
    action = rng.normal(0, 0.5, (n, 12)).astype(np.float32)
    outcomes = []
    for xp in (np, jnp):
        state, qpos, qvel = TASK.begin(xp, xp.asarray(u[0]), xp.asarray(kind), xp.asarray(level))
        targets = TASK.targets(xp, state, xp.asarray(action))
        reading = PhysicsReading(qpos, qvel, xp.asarray(sensors), xp.asarray(sensors[:, 13:]))
        bias = xp.zeros((n, 12), xp.float32)
        legs = xp.asarray(with_knees(feet).astype(np.float32))
        out = TASK.after(xp, state, xp.asarray(action), targets, reading, legs, bias, xp.asarray(u[1]))
        outcomes.append(out)
    here, there = outcomes
    assert here.metrics["passed"].sum() > 0
    for name in ("observation", "privileged", "reward", "fallen"):
        np.testing.assert_allclose(getattr(here, name), getattr(there, name), atol=2e-4, err_msg=name)
    for name in ("board", "level", "phase", "command"):
        np.testing.assert_allclose(getattr(here.state, name), getattr(there.state, name), atol=2e-5, err_msg=name)


def test_lanes_with_tables_have_their_board_a_metre_before_the_table():
    rng = np.random.default_rng(0)
    n = 300
    kind = np.full(n, GROUND.kinds.index("tables"))
    state, qpos, _ = TASK.begin(np, rng.random((n, 72), np.float32), kind, np.full(n, 5.0, np.float32))
    near, width = state.board[:, 0], state.board[:, 1]
    gap = TABLE[0] - (near + width)
    assert gap.min() >= GAP[0] - 1e-5 and gap.max() <= GAP[1] + 1e-5
    run_up = near - qpos[:, 0]
    assert run_up.min() >= RUN_UP_RANGE[0] - 1e-5 and run_up.max() <= RUN_UP_RANGE[1] + 1e-5
    lane = GROUND.land.origins[kind[0], 0, 1]
    height = GROUND.land.heights.height
    assert height(4.5, lane) == pytest.approx(0.1) and height(3.9, lane) == height(5.3, lane) == 0
    assert (height(qpos[:, 0], qpos[:, 1]) == 0).all() and (height(near, qpos[:, 1]) == 0).all()
    assert (height(np.linspace(0, 6, 99), np.zeros(99)) == 0).all()  # the flat lane


def test_a_period_further_on_the_lane_is_the_same_place():
    """A robot that comes past the end of the period is put back with its board; nobody can tell."""
    rng = np.random.default_rng(1)
    n = 64
    kind = np.full(n, GROUND.kinds.index("tables"))
    state, qpos, _ = TASK.begin(np, rng.random((n, 72), np.float32), kind, np.full(n, 5.0, np.float32))
    far_on = np.array(qpos)
    far_on[:, 0] = 6.2
    board = np.array(state.board)
    board[:, 0] = 6 + board[:, 0]
    feet = np.zeros((n, 4, 3))
    feet[..., 0] = 6.2
    moved = GROUND.follow(
        np, ROBOT, state._replace(board=board), far_on, with_knees(feet), chances(np.full((n, 8), 0.5, np.float32))
    )[0]
    shift = GROUND.shift(np, far_on[:, :2] - GROUND.origin(np, kind, state.level))
    np.testing.assert_allclose(shift[:, 0], -6.0)
    np.testing.assert_allclose(moved[:, 0] - (far_on[:, 0] + shift[:, 0]), board[:, 0] - far_on[:, 0], atol=1e-5)
    there = GROUND.land.heights.height
    np.testing.assert_allclose(there(far_on[:, 0] + 4, far_on[:, 1]), there(far_on[:, 0] + 4 - 6, far_on[:, 1]))


def test_behind_the_board_the_robot_is_asked_to_stop_on_the_table_and_then_to_go_on():
    """A point robot that does as it is told."""
    kind = np.array([GROUND.kinds.index("tables")])
    u = np.full((1, 72), 0.5, np.float32)
    state, qpos, _ = TASK.begin(np, u, kind, np.array([4.0], np.float32))
    x, seen, lane = float(qpos[0, 0]), [], GROUND.land.origins[kind[0], 0, 1]
    for _ in range(400):
        command = GROUND.guide(
            np, np.zeros((1, 3)), Commands(guided=(0.0, 2.0)), kind, np.zeros((1, 2)), np.zeros(1), state.board
        )
        x += DT * float(command[0, 0])
        feet, base = np.full((1, 4, 3), 0.1), np.zeros((1, 19))
        feet[..., 0], base[0, 0], base[0, 1] = x - 0.2, x, lane
        passage = GROUND.follow(np, ROBOT, state, base, with_knees(feet), chances(np.full((1, 8), 0.5, np.float32)))
        board, level = passage.board, passage.level
        astray = GROUND.astray(np, state, at(base))
        assert not astray[0]
        x += float(GROUND.shift(np, base[:, :2])[0, 0])
        state = state._replace(board=board, level=level)
        seen.append((x, float(command[0, 0]), float(board[0, 1])))
    x_of, speed, width = np.array(seen).T
    standing = (speed < 0.2) & (width == 0)
    assert standing.sum() > 30 and np.abs(x_of[standing] - TABLE[0] - STOP).max() < 0.12
    on = int(np.flatnonzero(standing)[-1])
    assert width[on + 5] > 0 and speed[on + 40 :].max() > 1.5  # and on, towards the next board
    for into, aside, until, lost in [
        (OVER + 0.02, 0.0, 50, True),
        (-0.05, 0.0, HOLD - MOUNTED - 1, True),  # not up, or down again
        (-0.05, 0.0, HOLD - MOUNTED, False),  # still on its way
        (STOP, ASIDE + 0.05, 50, True),
        (STOP, ASIDE - 0.05, 50, False),
    ]:
        base = np.zeros((1, 19))
        base[0, :2] = TABLE[0] + into, lane + aside
        waiting = state._replace(board=np.array([[2.5, 0.0, 0, 1, 0, until]], np.float32))
        assert GROUND.astray(np, waiting, at(base))[0] == lost


@pytest.mark.parametrize("near", [0.87, 1.62])
def test_a_board_that_reaches_out_of_view_has_a_distance_where_its_length_is_known(near):
    board = np.array([[near, 0.5, 0, 1, 1, 0]], np.float32)
    for xp in (np, jnp):
        heights = seen_heights(xp, xp.zeros((1, 2)), xp.zeros(1), xp.asarray([0.2]), 0.01, xp.asarray(board))
        assert float(obs.board_ahead(xp, TASK.layout, heights, 0.25)[0]) == pytest.approx(near + 0.25, abs=0.015)
    heights = seen_heights(np, np.zeros((1, 2)), np.zeros(1), np.array([0.2]), 0.0, np.array([[3.0, 0.5, 0, 1, 1, 0]]))
    assert np.isinf(obs.board_ahead(np, TASK.layout, heights, 0.25)[0])


@pytest.mark.parametrize("edge", [-0.55, -0.15])
def test_a_table_under_the_hind_feet_does_not_move_the_board(edge):
    """Off a start table of 0.1 m: the grid's rear cells lie on it."""
    zero = np.zeros(1)

    def heights(ground):
        board = lambda x, y: pit(np, x - 1.45, 0 * y, np.array(0.25), 10.0)  # noqa: E731
        return obs.terrain_heights(np, TASK.robot, TASK.layout, ground, np.zeros((1, 2)), zero, zero + 0.2, 0.0, board)

    seen = heights(lambda x, y: 0.1 * (x < edge))
    assert obs.board_ahead(np, TASK.layout, seen)[0] == pytest.approx(1.45, abs=0.015)
    assert obs.board_ahead(np, TASK.layout, seen)[0] == obs.board_ahead(np, TASK.layout, heights(lambda x, y: 0 * x))[0]
