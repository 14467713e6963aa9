"""How hard the next episode of a world is: named rules from its memory to a level `[...]`."""

from dataclasses import dataclass

from sim.arrays import Array, Namespace
from sim.tasks import patches
from sim.tasks.state import TaskState


@dataclass(frozen=True)
class Distance:
    """Up after making most of the distance that was asked, down after a fall or too little of it."""

    up: float = 0.85
    """Share of the asked distance above which the next episode is harder."""
    down: float = 0.65
    """Share below which it is easier."""
    least: float = 1.0
    """m that must have been asked for the episode to count."""

    def __call__(self, xp: Namespace, state: TaskState, fallen: Array, episode_steps: int) -> Array:
        """The next episode's level."""
        share = state.travelled / xp.maximum(state.asked, 1e-6)
        judged = (state.steps >= episode_steps / 2) * (state.asked > self.least) * (1 - fallen)
        change = judged * (1.0 * (share > self.up) - (share < self.down)) - fallen
        return xp.clip(state.level + change, 0, patches.LEVELS - 1).astype(xp.float32)


@dataclass(frozen=True)
class AsItStands:
    """The level that the ground itself has led to (`Ground.follow`), lower after a fall."""

    fall: float = 0.3

    def __call__(self, xp: Namespace, state: TaskState, fallen: Array, episode_steps: int) -> Array:
        """The next episode's level."""
        return xp.clip(state.level - self.fall * fallen, 0, patches.LEVELS - 1).astype(xp.float32)
