"""What followed on an action, out of rewards: generalised advantage estimation."""

from collections.abc import Sequence

import numpy as np

from distill.core.errors import DistillError


def advantages(
    rewards: np.ndarray, values: np.ndarray, episodes: Sequence[int], discount: float = 0.99, decay: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """How much better than expected each step of some episodes was, and what its value should have been, `[rows]` each.

    A_t = sum over k of (discount decay)^k (r_{t+k} + discount V_{t+k+1} - V_{t+k}), and A_t + V_t (arXiv 1506.02438,
    equation 16; the estimate that PPO takes, arXiv 1707.06347, equation 11).

    Args:
      rewards: `[rows]`, of episodes one after the other, each of which is over behind its last row (V = 0 there).
      values: what was expected at each row, `[rows]`, in the unit of the rewards.
      episodes: rows of each.
      discount: of a reward a step later, 0 to 1.
      decay: lambda, 0 (the next step alone is looked at, the rest expected) to 1 (everything is added up).

    Raises:
      DistillError: rows that do not add up, or shares that are none.
    """
    if rewards.shape != values.shape or rewards.shape != (sum(episodes),):
        raise DistillError(f"episodes of {sum(episodes)} rows cannot hold {len(rewards)} rewards, {len(values)} values")
    if not (0 <= discount <= 1 and 0 <= decay <= 1):
        raise DistillError(f"discount and decay must be from 0 to 1, got {discount} and {decay}")
    last = np.zeros(len(rewards), bool)
    last[np.cumsum(np.asarray(episodes, int)) - 1] = True
    following = np.where(last, 0.0, np.append(values[1:], 0.0))
    surprise = rewards + discount * following - values
    found = np.zeros(len(rewards))
    ahead = 0.0
    for t in range(len(rewards) - 1, -1, -1):
        ahead = surprise[t] + (0.0 if last[t] else discount * decay * ahead)
        found[t] = ahead
    return found, found + values
