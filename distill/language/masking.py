"""Words to be guessed from what stands on both sides: rows for masked language models (arXiv 1810.04805)."""

import numpy as np

from distill.core.errors import DistillError
from distill.core.tables import Rows


def masked_rows(tokens: np.ndarray, mask: int, first: int, rng: np.random.Generator, share: float = 0.15) -> Rows:
    """Rows whose words are hidden in part: `tokens` `[N, T]`, `target` `[N, T]` and `mask` `[N, T]`, where one counts.

    Of the words, whose ids begin at `first`, that share is chosen, one a row at least; four of five chosen ones become
    `mask`, half of the rest another word of these rows.

    Raises:
      DistillError: a row without a word.
    """
    words = tokens >= first
    if not words.any(1).all():
        raise DistillError("a row without words has none to hide")
    order = np.where(words, rng.random(tokens.shape), np.inf)
    chosen = order <= np.maximum(np.sort(order, 1)[:, :1], share)
    hidden = chosen & (rng.random(tokens.shape) < 0.8)
    other = chosen & ~hidden & (rng.random(tokens.shape) < 0.5)
    found = np.where(hidden, mask, tokens)
    return {"tokens": np.where(other, rng.choice(tokens[words], tokens.shape), found), "target": tokens, "mask": chosen}
