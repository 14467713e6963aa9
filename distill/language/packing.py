"""Token sequences of one length: text cut into chunks, and pairs of prompt and answer of which the answer counts.

A row is `tokens` `[T + 1]` and `mask` `[T]`: position t of the mask says whether predicting token t + 1 counts.
"""

from collections.abc import Sequence

import numpy as np

from distill.core.errors import DistillError


def chunks(ids: Sequence[int] | np.ndarray, length: int) -> dict[str, np.ndarray]:
    """One long text cut into rows of `length` predictions; what is left over at its end is dropped.

    Returns:
      `tokens` `[N, length + 1]` int64 and `mask` `[N, length]` bool, all True. Neighbours share one token.
    """
    ids = np.asarray(ids, np.int64)
    count = (len(ids) - 1) // length
    if length < 1 or count < 1:
        raise DistillError(f"a text of {len(ids)} tokens has no chunk of {length} predictions")
    rows = np.arange(count)[:, None] * length + np.arange(length + 1)
    return {"tokens": ids[rows], "mask": np.ones((count, length), bool)}


def packed(texts: Sequence[Sequence[int]], length: int, end: int) -> dict[str, np.ndarray]:
    """Short texts one after the other, each closed by `end`, cut as `chunks` does."""
    return chunks([token for text in texts for token in (*text, end)], length)


def answers(
    prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], length: int, end: int, pad: int
) -> dict[str, np.ndarray]:
    """Prompt, answer, end and padding; only the answer's tokens and its end count.

    Returns:
      `tokens` `[N, length + 1]` and `mask` `[N, length]`.

    Raises:
      DistillError: an empty prompt, or a pair that does not fit.
    """
    tokens = np.full((len(prompts), length + 1), pad, np.int64)
    mask = np.zeros((len(prompts), length), bool)
    for row, (prompt, answer) in enumerate(zip(prompts, targets, strict=True)):
        whole = [*prompt, *answer, end]
        if not prompt or len(whole) > length + 1:
            raise DistillError(
                f"row {row} has a prompt of {len(prompt)} and {len(whole)} tokens in all, of {length + 1}"
            )
        tokens[row, : len(whole)] = whole
        mask[row, len(prompt) - 1 : len(whole) - 1] = True
    return {"tokens": tokens, "mask": mask}


def padded(texts: Sequence[Sequence[int]], length: int, pad: int) -> np.ndarray:
    """Texts cut or padded at their ends to `[N, length]`."""
    tokens = np.full((len(texts), length), pad, np.int64)
    for row, text in enumerate(texts):
        kept = list(text)[:length]
        tokens[row, : len(kept)] = kept
    return tokens
