"""Words that nobody has read before."""

import numpy as np


def made_up(rng: np.random.Generator, count: int) -> list[str]:
    """So many different words of two syllables, of 4,830."""
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    pairs = [a + b for a in syllables for b in syllables if a != b]
    return [pairs[int(i)] for i in rng.permutation(len(pairs))[:count]]
