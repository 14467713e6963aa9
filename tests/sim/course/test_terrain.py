"""Ground height from pieces, the sampled height map against it, and the walker's endless patches."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.course.terrain import Block, HeightMap, Ramp, Terrain, footprint
from sim.errors import InputError
from sim.tasks import patches


def turned_rectangle(center, size, yaw) -> list[np.ndarray]:
    """Corners by complex numbers, counter-clockwise from the lower left."""
    half = [complex(-size[0], -size[1]), complex(size[0], -size[1]), complex(*size), complex(-size[0], size[1])]
    points = [complex(*center) + z / 2 * np.exp(1j * yaw) for z in half]
    return [np.array([p.real, p.imag]) for p in points]


def inside(point: np.ndarray, corners: list[np.ndarray]) -> bool:
    """Whether a point lies left of every edge of a counter-clockwise polygon."""
    edges = zip(corners, corners[1:] + corners[:1], strict=True)
    return all((b - a)[0] * (point - a)[1] - (b - a)[1] * (point - a)[0] >= 0 for a, b in edges)


PIECE = st.tuples(
    st.floats(-1, 1), st.floats(-1, 1), st.floats(0.3, 1.5), st.floats(0.3, 1.5), st.floats(-3.1, 3.1),
    st.floats(0.01, 0.5), st.floats(0.01, 0.5), st.booleans(),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(PIECE, max_size=4), seed=st.integers(0, 1000))
def test_height_is_the_highest_surface_over_the_point(pieces, seed):
    terrain, shapes = [], []
    for i, (x, y, length, width, yaw, z0, z1, ramp) in enumerate(pieces):
        kind = Ramp if ramp else Block
        heights = {"z_start": z0, "z_end": z1} if ramp else {"top": z0}
        terrain.append(kind(str(i), (x, y), (length, width), yaw=yaw, **heights))
        shapes.append((turned_rectangle((x, y), (length, width), yaw), z0, z1 if ramp else z0))
        np.testing.assert_allclose(footprint(terrain[-1]), shapes[-1][0], atol=1e-12)
    points = np.random.default_rng(seed).uniform(-2, 2, (30, 2))
    expected = np.zeros(len(points))
    for k, p in enumerate(points):
        for corners, z0, z1 in shapes:
            if inside(p, corners):
                ahead = corners[1] - corners[0]
                share = (p - corners[0]) @ ahead / (ahead @ ahead)  # 0 on the low edge, 1 on the high one
                expected[k] = max(expected[k], z0 + share * (z1 - z0))
    np.testing.assert_allclose(Terrain(tuple(terrain)).height(points[:, 0], points[:, 1]), expected, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(PIECE, max_size=12), seed=st.integers(0, 1000))
def test_pieces_that_are_not_near_the_points_change_nothing(pieces, seed):
    rng = np.random.default_rng(seed)
    whole = Terrain(
        tuple(Block(str(i), (3 * x, 3 * y), (a, b), z, yaw=t) for i, (x, y, a, b, t, z, *_) in enumerate(pieces))
    )
    points = rng.uniform(-4, 4, 2) + rng.uniform(-0.4, 0.4, (25, 2))
    points[3] = np.nan
    alone = [Terrain((piece,)).height(*points.T) for piece in whole.pieces]
    for count in (25, 3, 0):
        expected = np.max([np.zeros(25), *alone], 0)[:count]
        np.testing.assert_array_equal(whole.height(*points[:count].T), expected)


def test_known_heights():
    terrain = Terrain((Block("table", (0.5, -0.5), (1, 1), top=0.1), Ramp("up", (2, 0), (2, 1), 0.0, 1.0, yaw=np.pi)))
    assert terrain.height(0.5, -0.5) == pytest.approx(0.1)
    assert terrain.height(0.5, 0.01) == 0
    # turned by 180 degrees, the ramp rises towards -x: from x = 3 at the bottom to x = 1 at the top
    np.testing.assert_allclose(terrain.height([2.999, 2.0, 1.001], 0.2), [0.0005, 0.5, 0.9995], atol=1e-9)
    assert terrain.pieces[1].pitch == pytest.approx(np.arctan(0.5))
    assert Terrain().height(np.zeros((2, 3)), 1.0).shape == (2, 3)


@pytest.mark.parametrize("center, size", [((np.nan, 0), (1, 1)), ((0, 0), (0, 1)), ((0, 0), (1, -1))])
def test_impossible_pieces_are_refused_by_name(center, size):
    with pytest.raises(InputError, match="terrain piece 'crate'"):
        Terrain((Block("crate", center, size, top=0.1),))


# --- the height map ---------------------------------------------------------------------------------------------------


def test_the_height_map_is_exact_at_cell_centres_and_within_a_cell_elsewhere():
    terrain = Terrain(
        (
            Block("turned", (0.3, 0.2), (0.9, 0.5), top=0.11, yaw=0.4),
            Ramp("ramp", (-0.6, -0.4), (0.8, 0.7), 0.02, 0.3, yaw=-2.0),
            Block("over the border", (1.2, 0.9), (1.0, 1.0), top=0.07),
            Block("outside", (5, 5), (1, 1), top=0.5),
        )
    )
    step = 0.02
    sampled = HeightMap.from_terrain(terrain, (-1.2, -1.0), (1.3, 1.1), step)
    assert sampled.cells.shape == (126, 106)
    i, j = np.meshgrid(np.arange(126), np.arange(106), indexing="ij")
    x, y = -1.2 + step * i, -1.0 + step * j
    np.testing.assert_allclose(sampled.cells, terrain.height(x, y), atol=1e-6)
    rng = np.random.default_rng(0)
    points = rng.uniform((-1.2, -1.0), (1.3, 1.1), (3000, 2))
    found = sampled.height(points[:, 0], points[:, 1])
    near = np.array(
        [terrain.height(points[:, 0] + dx, points[:, 1] + dy) for dx in (-0.01, 0, 0.01) for dy in (-0.01, 0, 0.01)]
    )
    flat = np.ptp(near, axis=0) < 1e-9
    assert flat.sum() > 1500
    np.testing.assert_allclose(found[flat], near[4][flat], atol=1e-6)
    slope = 0.28 / 0.8
    assert ((found >= near.min(0) - slope * step) & (found <= near.max(0) + slope * step)).all()


def test_points_outside_the_map_see_its_border_and_jax_sees_the_same():
    cells = np.arange(12, dtype=np.float32).reshape(3, 4)
    sampled = HeightMap((1.0, 2.0), 0.5, cells)
    x = np.array([-9.0, 9.0, 1.0, 1.5, 1.74, 1.76, 9.0], np.float32)
    y = np.array([-9.0, 9.0, 9.0, 2.0, 2.0, 2.0, 2.5], np.float32)
    expected = [0, 11, 3, 4, 4, 8, 9]
    assert sampled.height(x, y).tolist() == expected
    assert np.asarray(sampled.height(jnp.asarray(x), jnp.asarray(y), jnp)).tolist() == expected


# --- patches ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ground() -> patches.Patches:
    return patches.make_patches()


def test_patches_repeat_themselves_so_that_a_robot_put_back_by_a_period_cannot_tell(ground):
    rng = np.random.default_rng(1)
    reach = patches.MARGIN - 0.05
    for kind in range(len(patches.KINDS)):
        for level in range(patches.LEVELS):
            x0, y0 = ground.origins[kind, level]
            along = rng.uniform(-patches.PERIOD / 2, patches.PERIOD / 2, 40)
            beyond = patches.PERIOD / 2 + rng.uniform(0.01, reach, 40) * rng.choice([-1, 1], 40)
            back = beyond - patches.PERIOD * np.sign(beyond)
            height = ground.terrain.height
            np.testing.assert_allclose(height(x0 + beyond, y0 + along), height(x0 + back, y0 + along), atol=2e-3)
            np.testing.assert_allclose(height(x0 + along, y0 + beyond), height(x0 + along, y0 + back), atol=2e-3)


def test_patches_get_harder_up_to_the_stated_slope_and_step(ground):
    def highest(kind: str, level: int) -> float:
        x0, y0 = ground.origins[patches.KINDS.index(kind), level]
        x, y = np.meshgrid(np.linspace(-3, 3, 241), np.linspace(-3, 3, 61), indexing="ij")
        return float(ground.terrain.height(x0 + x, y0 + y).max())

    assert [highest("flat", level) for level in range(patches.LEVELS)] == [0.0] * patches.LEVELS
    for kind in ("slope", "stairs", "tables"):
        heights = [highest(kind, level) for level in range(patches.LEVELS)]
        assert (np.diff(heights) > 0).all(), kind
    top = patches.LEVELS - 1
    assert highest("slope", top) == pytest.approx(2.25 * np.tan(np.deg2rad(16)), abs=0.01)
    assert highest("stairs", top) == pytest.approx(3 * 0.11)
    assert highest("tables", top) == pytest.approx(0.11)
    assert 0.08 < highest("blocks", top) <= 0.11


def test_the_map_of_the_training_ground_is_the_ground(ground):
    rng = np.random.default_rng(2)
    x0, y0 = ground.origins.reshape(-1, 2)[rng.integers(0, ground.origins.size // 2, 3000)].T
    x, y = x0 + rng.uniform(-3, 3, 3000), y0 + rng.uniform(-3, 3, 3000)
    difference = np.abs(ground.heights.height(x, y) - ground.terrain.height(x, y))
    assert np.median(difference) < 1e-6
    assert (difference < np.tan(patches.MAX_SLOPE) * 0.025).mean() > 0.95  # the rest: points beside an edge
    assert difference.max() <= patches.MAX_STEP + 1e-6
