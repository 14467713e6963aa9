"""Where the feet are, from joint angles: read from a robot's MJCF without MuJoCo, as a robot has none onboard."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from sim import observation as obs
from sim.errors import InputError
from sim.robots.description import Robot

Array = npt.NDArray[Any]

TURNS = ("euler", "axisangle", "xyaxes", "zaxis")
"""Ways to give an attitude that are not read here."""
GRAVITY = 9.81
"""m/s^2."""


class Link(NamedTuple):
    """One joint of a leg: where it sits in the link before it, and its axis there."""

    place: Array
    """m `[3]`."""
    turn: Array
    """Rotation matrix `[3, 3]`."""
    axis: Array
    """Unit vector in the link's own axes `[3]`."""


class Feet(NamedTuple):
    """All feet at some joint angles, in the base's axes."""

    place: Array
    """Of the feet's centres, from the base's origin, m `[legs, 3]`."""
    jacobian: Array
    """Their velocities over the legs' joint speeds, m/rad `[legs, 3, joints of a leg]`."""
    axes: Array
    """Of the legs' joints `[legs, 3, joints of a leg]`: times their speeds, the shanks' angular velocities."""


@dataclass(frozen=True)
class Kinematics:
    """The legs of a robot, in the order of `Robot.legs`; all have as many joints."""

    chains: tuple[tuple[Link, ...], ...]
    joints: Array
    """Index of each chain's joints among the robot's `[legs, joints of a leg]`."""
    centres: Array
    """Of each foot in its last link, m `[legs, 3]`."""
    imu: Array
    """Of the IMU in the base, m `[3]`."""
    mass: float
    """Of the whole robot, kg."""

    @cached_property
    def _links(self) -> list[tuple[Array, Array, Array, Array, Array]]:
        """By joint, of all legs at once: place `[legs, 3, 1]`, turn `[legs, 3, 3]`, axis `[legs, 3, 1]`, and the matrix
        `[legs, 3, 3]` of its vector product and that one's square."""
        found = []
        for links in zip(*self.chains, strict=True):
            axes = np.stack([link.axis for link in links])
            s = skews(axes)
            places, turns = np.stack([link.place for link in links]), np.stack([link.turn for link in links])
            found.append((places[..., None], turns, axes[..., None], s, s @ s))
        return found

    def feet(self, position: Array) -> Feet:
        """The feet at the robot's joint angles (rad `[J]`)."""
        legs, joints = self.joints.shape
        place, turn = np.zeros((legs, 3, 1)), np.broadcast_to(np.eye(3), (legs, 3, 3))
        origins, axes = np.empty((legs, 3, joints)), np.empty((legs, 3, joints))
        angles = np.asarray(position, float)[self.joints]
        sines, versines = np.sin(angles), 1 - np.cos(angles)
        for k, (there, facing, axis, s, squared) in enumerate(self._links):
            place = place + turn @ there
            turn = turn @ facing
            origins[:, :, k : k + 1] = place
            axes[:, :, k : k + 1] = turn @ axis
            turn = turn @ (np.eye(3) + sines[:, k, None, None] * s + versines[:, k, None, None] * squared)
        place = place + turn @ self.centres[..., None]
        return Feet(place[:, :, 0], _cross(axes, place - origins), axes)


def _cross(a: Array, b: Array) -> Array:
    """Vector products along the middle of three axes, `[n, 3, m]`."""
    return a[:, _NEXT] * b[:, _LAST] - a[:, _LAST] * b[:, _NEXT]


_NEXT, _LAST = [1, 2, 0], [2, 0, 1]


def cross(a: Array, b: Array) -> Array:
    """Vector product of two vectors `[3]`; for so few numbers numpy's own takes ten times as long."""
    x, y, z = a.tolist()
    u, v, w = b.tolist()
    return np.array([y * w - z * v, z * u - x * w, x * v - y * u])


def skew(v: Array) -> Array:
    """The matrix `[3, 3]` whose product with b is the vector product of `v` with b."""
    x, y, z = v.tolist()
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def skews(v: Array) -> Array:
    """`skew` of each of so many vectors `[n, 3]`: `[n, 3, 3]`."""
    out = np.zeros((len(v), 3, 3))
    out[:, [2, 0, 1], [1, 2, 0]] = v
    out[:, [1, 2, 0], [2, 0, 1]] = -v
    return out


def rotation(v: Array) -> Array:
    """Rotation matrix `[3, 3]` of a rotation vector (rad `[3]`), by Rodrigues' formula."""
    angle = float(np.sqrt(v @ v))
    s = skew(v)
    if angle < 1e-8:
        return np.eye(3) + s
    return np.eye(3) + np.sin(angle) / angle * s + (1 - np.cos(angle)) / angle**2 * s @ s


def matrix_of(quaternion: Array) -> Array:
    """Rotation matrix `[3, 3]` of a quaternion w, x, y, z."""
    w, x, y, z = (np.asarray(quaternion, float) / np.linalg.norm(quaternion)).tolist()
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_of(matrix: Array) -> Array:
    """Quaternion w, x, y, z of a rotation matrix `[3, 3]`, w not negative.

    By the largest of its four numbers, so that nothing small is divided by.
    """
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    squares = (1 + a + e + i, 1 + a - e - i, 1 - a + e - i, 1 - a - e + i)
    largest = squares.index(max(squares))
    found = (
        (squares[0], h - f, c - g, d - b),
        (h - f, squares[1], b + d, c + g),
        (c - g, b + d, squares[2], f + h),
        (d - b, c + g, f + h, squares[3]),
    )[largest]
    scale = math.copysign(1 / math.sqrt(sum(value * value for value in found)), found[0] or 1.0)
    return np.array([value * scale for value in found])


def facing(orientation: Array, yaw: float) -> Array:
    """An orientation (w, x, y, z) `[4]` turned about the vertical to the heading `yaw`, rad; it leans as before."""
    half = (yaw - float(obs.yaw_of(np, orientation))) / 2
    c, s = np.cos(half), np.sin(half)
    w, x, y, z = orientation.tolist()
    return np.array([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w])


def kinematics_of(robot: Robot) -> Kinematics:
    """Reads a robot's legs from its MJCF.

    Raises:
      InputError: a file that cannot be read, or that says things in a way that is not understood here.
    """
    try:
        root = ElementTree.parse(Path(robot.mjcf)).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"cannot read the robot model {robot.mjcf}: {error}") from error
    return _Reader(root, robot).read()


class _Reader:
    def __init__(self, root: ElementTree.Element, robot: Robot) -> None:
        self.root, self.robot = root, robot
        self.defaults: dict[tuple[str, str], dict[str, str]] = {}
        """(class, element) -> attributes."""
        for default in root.findall("default"):
            self._read_defaults(default, {})
        self.parents = {child: parent for parent in root.iter() for child in parent}

    def read(self) -> Kinematics:
        if self.root.find(".//include") is not None:
            raise self._wrong("it includes another file")
        base = self._named("body", self.robot.base_body)
        names = list(self.robot.joint_names)
        chains: list[tuple[Link, ...]] = []
        joints: list[list[int]] = []
        centres: list[Array] = []
        for leg in self.robot.legs:
            geom = self._named("geom", leg.foot)
            chain: list[Link] = []
            order: list[int] = []
            place, turn = np.zeros(3), np.eye(3)  # of links without a joint, gathered on the way
            offset = self._vector(geom, "pos", "0 0 0")
            body = self.parents[geom]
            while body is not base:
                here, facing = self._vector(body, "pos", "0 0 0"), self._turn(body)
                found = body.findall("joint")
                if len(found) > 1:
                    raise self._wrong(f"body '{body.get('name')}' has several joints")
                if found:
                    joint = found[0]
                    if self._vector(joint, "pos", "0 0 0").any():
                        raise self._wrong(f"joint '{joint.get('name')}' is not at its body's origin")
                    axis = self._vector(joint, "axis", "0 0 1")
                    chain.insert(0, Link(here, facing, axis / np.linalg.norm(axis)))
                    order.insert(0, names.index(str(joint.get("name"))))
                    place, turn = np.zeros(3), np.eye(3)
                elif chain:
                    place, turn = here, facing
                    first = chain[0]
                    chain[0] = Link(place + turn @ first.place, turn @ first.turn, first.axis)
                else:
                    offset = here + facing @ offset
                body = self.parents[body]
            chains.append(tuple(chain))
            joints.append(order)
            centres.append(offset)
        if len({len(chain) for chain in chains}) > 1:
            raise self._wrong("its legs have different numbers of joints")
        imu = self._named("site", self.robot.imu_site)
        if self.parents[imu] is not base or not np.allclose(self._turn(imu), np.eye(3)):
            raise self._wrong("the IMU's site is not on the base with its axes")
        masses = [float(element.get("mass", "nan")) for element in base.iter("inertial")]
        if not masses or not np.isfinite(masses).all():
            raise self._wrong("bodies have no 'inertial' with a mass")
        place = self._vector(imu, "pos", "0 0 0")
        return Kinematics(tuple(chains), np.array(joints), np.stack(centres), place, sum(masses))

    def _wrong(self, why: str) -> InputError:
        return InputError(f"the feet of {self.robot.name} cannot be read from {self.robot.mjcf}: {why}")

    def _named(self, kind: str, name: str) -> ElementTree.Element:
        found = self.root.find(f"./worldbody//{kind}[@name='{name}']")
        if found is None:
            raise self._wrong(f"there is no {kind} '{name}'")
        return found

    def _read_defaults(self, default: ElementTree.Element, above: dict[str, dict[str, str]]) -> None:
        mine = {kind: dict(values) for kind, values in above.items()}
        for element in default:
            if element.tag != "default":
                mine[element.tag] = {**mine.get(element.tag, {}), **element.attrib}
        name = default.get("class", "main")
        self.defaults |= {(name, kind): values for kind, values in mine.items()}
        for inner in default.findall("default"):
            self._read_defaults(inner, mine)

    def _attribute(self, element: ElementTree.Element, name: str, otherwise: str) -> str:
        if name in element.attrib:
            return element.attrib[name]
        group = element.get("class")
        above = self.parents.get(element)
        while group is None and above is not None:
            group, above = above.get("childclass"), self.parents.get(above)
        return self.defaults.get((group or "main", element.tag), {}).get(name, otherwise)

    def _vector(self, element: ElementTree.Element, name: str, otherwise: str) -> Array:
        try:
            return np.array([float(word) for word in self._attribute(element, name, otherwise).split()])
        except ValueError as error:
            raise self._wrong(f"{element.tag} '{element.get('name')}' has no numbers in '{name}'") from error

    def _turn(self, element: ElementTree.Element) -> Array:
        given = [name for name in TURNS if self._attribute(element, name, "")]
        if given:
            raise self._wrong(f"{element.tag} '{element.get('name')}' gives its attitude as {given[0]}")
        return matrix_of(self._vector(element, "quat", "1 0 0 0"))
