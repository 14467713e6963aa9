"""Parameters of one robot's policy in the terms of another robot: what a warm start from a relative begins with.

Quadrupeds with as many joints differ in the order of their legs and joints, in which way angles count, in action scale
and in standing height. All of that is known from the descriptions, so a network that walks one of them can be rewritten
for the other: rows and columns change places and signs, statistics follow. It does not know the new robot's masses and
lengths; that is left to training, which begins with a robot that steps instead of one that falls.
"""

from dataclasses import dataclass

import mujoco
import numpy as np

from sim import observation as obs
from sim.errors import InputError
from sim.robots.description import Robot
from sim.tasks.observations import CRITIC
from sim.tasks.task import Task

NUDGE = 1e-3
"""Angle by which a leg is spread to see which way it counts, rad."""


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Which joint and leg of a source robot does what each one of a target robot does."""

    joints: np.ndarray
    """Index of the source's joint for each of the target's, int `[J]`."""
    signs: np.ndarray
    """1 where the two count the same way, -1 where they count opposite ways, `[J]`."""
    legs: np.ndarray
    """Index of the source's leg for each of the target's, int `[legs]`."""


def outward(robot: Robot) -> np.ndarray:
    """1 where a larger abduction angle moves the leg's foot away from the body's middle plane, else -1, `[legs]`."""
    model = mujoco.MjModel.from_xml_path(str(robot.mjcf))
    data = mujoco.MjData(model)

    def aside(pose: np.ndarray) -> np.ndarray:
        data.qpos[:7], data.qpos[7:] = (0, 0, 1, 1, 0, 0, 0), pose
        mujoco.mj_kinematics(model, data)
        return np.array([abs(data.geom(leg.foot).xpos[1]) for leg in robot.legs])

    moved = np.array(robot.default_pose, float)
    moved[robot.leg_joints[:, 0]] += NUDGE
    return np.sign(aside(moved) - aside(robot.default_pose))


def correspondence(source: Robot, target: Robot) -> Correspondence:
    """Joints and legs of `target` in terms of `source`, by corners and by what moves which way.

    Raises:
      InputError: robots with other numbers of joints.
    """
    if source.joints != target.joints:
        raise InputError(f"{source.name} has {source.joints} joints and {target.name} has {target.joints}")
    corners = [leg.corner for leg in source.legs]
    legs = np.array([corners.index(leg.corner) for leg in target.legs])
    joints, signs = np.zeros(target.joints, int), np.ones(target.joints)
    ways = []
    for robot in (source, target):
        forward, opening = robot.leg_signs[2], robot.leg_signs[3]
        ways.append(np.stack([outward(robot), forward, opening], 1))
    joints[target.leg_joints] = source.leg_joints[legs]
    signs[target.leg_joints] = ways[0][legs] * ways[1]
    return Correspondence(joints, signs, legs)


@dataclass(frozen=True, eq=False)
class Rewriting:
    """A vector of the target as `factor * source[index] + shift`."""

    index: np.ndarray
    factor: np.ndarray
    shift: np.ndarray


def inputs(source: Task, target: Task) -> tuple[Rewriting, Rewriting]:
    """The actor's and the critic's input of `target`'s robot in terms of `source`'s, for one skill on both."""
    same = correspondence(source.robot, target.robot)
    scale = source.robot.action_scale[same.joints] / target.robot.action_scale
    spread = {"joint_offset": same.signs, "joint_velocity": same.signs, "last_action": same.signs * scale}
    size = target.privileged_size
    index, factor, shift = np.arange(size), np.ones(size), np.zeros(size)
    layout, begin = target.layout, target.layout.size
    frames = [layout.slices()[f"frame_{age}"].start for age in layout.frames]
    for name in target.critic:
        if name == "frame":
            frames.append(begin)
        elif name == "contact":
            index[begin : begin + len(same.legs)] = begin + same.legs
        elif name == "height":
            shift[begin] = target.robot.standing_height - source.robot.standing_height
        begin += CRITIC[name].size(target.robot)
    for start in frames:
        for name, factors in spread.items():
            part = obs.frame_slices(target.robot.joints)[name]
            index[start + part.start : start + part.stop] = start + part.start + same.joints
            factor[start + part.start : start + part.stop] = factors
    actor = slice(0, layout.size)
    return Rewriting(index[actor], factor[actor], shift[actor]), Rewriting(index, factor, shift)


def widened(arrays: dict[str, np.ndarray], before: obs.Layout, after: obs.Layout) -> dict[str, np.ndarray]:
    """A checkpoint's parameters and statistics of a policy that saw `before`, for one that sees more: what is new
    changes no action yet, and counts as if it had had mean 0 and variance 1 so far.

    Raises:
      InputError: `after` lacks something of `before`, or arrays that are not a specialist's.
    """
    had, has, out = before.slices(), after.slices(), dict(arrays)
    if any(name not in has or has[name].stop - has[name].start != part.stop - part.start for name, part in had.items()):
        raise InputError("the checkpoint's policy sees what this one does not")
    kept = np.concatenate([np.arange(has[name].start, has[name].stop) for name in had])
    more = after.size - before.size

    def wider(values: np.ndarray, new: float) -> np.ndarray:
        """Along the first axis; what stands behind the layout's part, of a critic, stays there."""
        whole = np.full((len(values) + more, *values.shape[1:]), new, values.dtype)
        whole[kept], whole[after.size :] = values[: before.size], values[before.size :]
        return whole

    try:
        count = float(arrays["normalizer.count.hi"]) * 2.0**32 + float(arrays["normalizer.count.lo"])
        for part, new in (("mean", 0.0), ("std", 1.0), ("summed_variance", count)):
            for name in ("state", "privileged_state"):
                key = f"normalizer.{part}['{name}']"
                out[key] = wider(arrays[key], new)
        for network in ("policy", "value"):
            key = _first_kernel(arrays, network)
            out[key] = wider(arrays[key], 0.0)
    except (KeyError, IndexError, ValueError, StopIteration) as error:
        raise InputError(f"the checkpoint is not a specialist's: {error}") from error
    return out


def _first_kernel(arrays: dict[str, np.ndarray], network: str) -> str:
    return next(k for k in arrays if k.startswith(f"params.{network}[") and "hidden_0" in k and "kernel" in k)


def translate(arrays: dict[str, np.ndarray], source: Task, target: Task) -> dict[str, np.ndarray]:
    """A checkpoint's parameters and statistics (`params` and `normalizer`) of `source`'s robot, for `target`'s.

    Raises:
      InputError: tasks of other sizes, or arrays that are not a specialist's.
    """
    if (source.layout.size, source.privileged_size) != (target.layout.size, target.privileged_size):
        raise InputError(f"the skills of {source.robot.name} and {target.robot.name} see different things")
    same = correspondence(source.robot, target.robot)
    scale = source.robot.action_scale[same.joints] / target.robot.action_scale
    actor, critic = inputs(source, target)
    out = dict(arrays)
    try:
        for name, wanted in (("state", actor), ("privileged_state", critic)):
            for part in ("mean", "std", "summed_variance"):
                key = f"normalizer.{part}['{name}']"
                values = arrays[key][wanted.index]
                changed = {
                    "mean": wanted.factor * values + wanted.shift,
                    "std": np.abs(wanted.factor) * values,
                    "summed_variance": wanted.factor**2 * values,
                }[part]
                out[key] = changed.astype(arrays[key].dtype)
        for network, wanted in (("policy", actor), ("value", critic)):
            key = _first_kernel(arrays, network)
            kernel = arrays[key][wanted.index] * np.sign(wanted.factor)[:, None]
            out[key] = kernel.astype(arrays[key].dtype)
        head = "params.policy['params']"
        for key, change in (
            (f"{head}['Dense_0']['kernel']", lambda v: v[:, same.joints] * (same.signs * scale)),
            (f"{head}['Dense_0']['bias']", lambda v: v[same.joints] * same.signs * scale),
            (f"{head}['std_logparam']['log_value']", lambda v: v[same.joints] + np.log(scale)),
        ):
            out[key] = change(arrays[key]).astype(arrays[key].dtype)
    except (KeyError, IndexError, StopIteration) as error:
        raise InputError(f"the checkpoint is not a specialist's: {error}") from error
    return out
