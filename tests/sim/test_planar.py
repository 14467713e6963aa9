"""Angles and rotations in the plane."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.planar import place, to_body, to_world, wrap

ANGLE = st.floats(-50, 50)


@given(ANGLE)
def test_a_wrapped_angle_points_the_same_way(angle):
    wrapped = wrap(angle)
    assert -np.pi <= wrapped < np.pi
    assert np.isclose(np.exp(1j * wrapped), np.exp(1j * angle))


def test_half_a_turn_is_negative():
    assert wrap(np.pi) == wrap(-np.pi) == -np.pi and wrap(np.array([0.0, 2 * np.pi])).tolist() == [0.0, 0.0]


@given(st.floats(-9, 9), st.floats(-9, 9), ANGLE)
def test_what_lies_ahead_and_to_the_left(x, y, yaw):
    forward, left = to_body(x, y, yaw)
    assert np.isclose(forward + 1j * left, (x + 1j * y) * np.exp(-1j * yaw), atol=1e-9)
    assert np.allclose(to_world(forward, left, yaw), (x, y), atol=1e-9)
    assert np.allclose(place(3.0, -2.0, yaw, forward, left), (x + 3.0, y - 2.0), atol=1e-9)
