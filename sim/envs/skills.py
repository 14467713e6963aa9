"""The skills that are trained, each a task over its own ground with its own weights."""

from collections.abc import Callable

from sim.envs import patches, rewards
from sim.envs.walk import Commands, WalkTask


def walk() -> WalkTask:
    """Omnidirectional walking on the flat, slopes to 16 degrees, steps and stairs to 0.11 m."""
    return WalkTask()


def climb() -> WalkTask:
    """Up and down slopes of 5 to 33 degrees: ridges from any direction, A-frames of the official size lengthwise."""
    return WalkTask(
        kinds=patches.CLIMB_KINDS,
        kind_shares=(0.2, 0.3, 0.5),
        guided=("frames",),
        weights=dict(rewards.CLIMB),
        collision="full",  # the trunk can come to rest on the ridge
        commands=Commands(rough_scale=0.6),
    )


SKILLS: dict[str, Callable[[], WalkTask]] = {"walk": walk, "climb": climb}
