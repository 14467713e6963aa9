"""Where a robot's feet are, by its joint angles: the chains of bodies in its MJCF, without an engine."""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sim.errors import InputError
from sim.reading import check_file
from sim.robots.description import Robot

Array = npt.NDArray[Any]
LARGEST = 4_000_000
"""Bytes of a model without meshes."""
OTHER_TURNS = ("euler", "axisangle", "xyaxes", "zaxis")
"""Ways to turn a body that are not read here."""


@dataclass(frozen=True, eq=False)
class Feet:
    """Chains from the base to the feet: a link per joint, each turned by its joint about its own origin."""

    joints: Array
    """Index of the joints of each leg, from the base on, int `[legs, links]`."""
    offsets: Array
    """From a link's origin to the next one's, in the link before, and at last to the foot, m `[legs, links + 1, 3]`."""
    still: Array
    """How a link is turned in the link before at an angle of 0: rotation matrix R, `[legs, links, 3, 3]`."""
    cross: Array
    """R K, where K v = axis x v for the joint's axis, `[legs, links, 3, 3]`: at an angle a the link is turned by
    R + sin(a) R K + (1 - cos(a)) R K K (Rodrigues)."""
    squared: Array
    """R K K."""

    @classmethod
    def of(cls, robot: Robot) -> Self:
        """The feet of a robot, by its model.

        Raises:
          InputError: its legs are no chains of hinges whose bodies stand in the file with `pos` and `quat`.
        """
        check_file(robot.mjcf, LARGEST)
        try:
            root = ElementTree.fromstring(robot.mjcf.read_bytes())
        except ElementTree.ParseError as error:
            raise InputError(f"{robot.mjcf} is no XML: {error}") from error
        model = _Model(root)
        legs = [model.chain(leg.foot, robot) for leg in robot.legs]
        if len({len(joints) for joints, *_ in legs}) != 1:
            raise InputError(f"the legs of {robot.name} have different numbers of joints")
        joints, offsets, still, axes = (np.array(part) for part in zip(*legs, strict=True))
        x, y, z, zero = *np.moveaxis(axes, -1, 0), np.zeros(axes.shape[:-1])
        cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*axes.shape[:-1], 3, 3)
        return cls(joints, offsets, still, still @ cross, still @ cross @ cross)

    def places(self, angles: Array) -> Array:
        """Centres of the feet in the base frame, m `[legs, 3]`, for joint angles, rad `[J]`."""
        angle = angles[self.joints][:, :, None, None]
        turns = self.still + np.sin(angle) * self.cross + (1.0 - np.cos(angle)) * self.squared
        place = self.offsets[:, -1, :, None]
        for link in range(turns.shape[1] - 1, -1, -1):
            place = self.offsets[:, link, :, None] + turns[:, link] @ place
        return place[:, :, 0]


class _Model:
    """What a chain takes of an MJCF: bodies with their parents, and attributes with those of their default classes."""

    def __init__(self, root: ElementTree.Element) -> None:
        self._defaults: dict[tuple[str, str], dict[str, str]] = {}
        for default in root.findall("default"):
            self._read_default(default, {})
        self._parents = {child: parent for parent in root.iter() for child in parent}
        self._root = root

    def _read_default(self, element: ElementTree.Element, above: dict[str, dict[str, str]]) -> None:
        name, here = element.get("class", "main"), dict(above)
        for child in element:
            if child.tag != "default":
                here[child.tag] = here.get(child.tag, {}) | child.attrib
        for tag, attributes in here.items():
            self._defaults[name, tag] = attributes
        for child in element.findall("default"):
            self._read_default(child, here)

    def attributes(self, element: ElementTree.Element) -> dict[str, str]:
        """Of an element, with its class's."""
        kind = element.get("class")
        above: ElementTree.Element | None = element
        while kind is None and (above := self._parents.get(above)) is not None:
            kind = above.get("childclass")
        return self._defaults.get((kind or "main", element.tag), {}) | element.attrib

    def chain(self, foot: str, robot: Robot) -> tuple[list[int], list[Array], list[Array], list[Array]]:
        """Joints, offsets, turns and axes from the base to a foot; see `Feet`."""
        geom = next((geom for geom in self._root.iter("geom") if geom.get("name") == foot), None)
        if geom is None:
            raise InputError(f"{robot.mjcf} has no foot '{foot}'")
        joints: list[int] = []
        offsets, still, axes = [_numbers(self.attributes(geom), "pos", (0, 0, 0))], list[Array](), list[Array]()
        body = self._parents[geom]
        while body.tag == "body" and body.get("name") != robot.base_body:
            hinges = body.findall("joint")
            if any(name in body.attrib for name in OTHER_TURNS) or len(hinges) > 1:
                raise InputError(f"{robot.mjcf}: the body '{body.get('name')}' is no link that is read here")
            place, turn = _numbers(body.attrib, "pos", (0, 0, 0)), _matrix(_numbers(body.attrib, "quat", (1, 0, 0, 0)))
            if hinges:
                told = self.attributes(hinges[0])
                name, axis = str(told.get("name")), _numbers(told, "axis", (0, 0, 1))
                if name not in robot.joint_names or told.get("type", "hinge") != "hinge" or "pos" in told:
                    raise InputError(f"{robot.mjcf}: '{name}' is no joint of {robot.name} that is read here")
                joints.insert(0, robot.joint_names.index(name))
                axes.insert(0, axis / np.linalg.norm(axis))
                still.insert(0, turn)
                offsets.insert(0, place)
            else:  # a body that does not move against the one that carries it
                offsets[0] = place + turn @ offsets[0]
                if still:
                    still[0] = turn @ still[0]
            body = self._parents[body]
        if not joints or body.get("name") != robot.base_body:
            raise InputError(f"{robot.mjcf}: the foot '{foot}' hangs by no joint on the body '{robot.base_body}'")
        return joints, offsets, still, axes


def _numbers(attributes: dict[str, str], name: str, otherwise: tuple[float, ...]) -> Array:
    try:
        values = np.array(
            [float(part) for part in attributes[name].split()] if name in attributes else otherwise, float
        )
    except ValueError as error:
        raise InputError(f"'{name}' must be numbers, got {attributes[name][:60]!r}") from error
    if values.shape != (len(otherwise),):
        raise InputError(f"'{name}' must be {len(otherwise)} numbers, got {attributes[name][:60]!r}")
    return values


def _matrix(quaternion: Array) -> Array:
    """Rotation matrix of a quaternion (w, x, y, z)."""
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
