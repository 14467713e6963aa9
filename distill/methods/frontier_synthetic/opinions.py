"""Short texts of words that praise or blame, each by so much: what one says of a thing is a sum, seen or worked out."""

from collections.abc import Sequence

import numpy as np

from distill.language.examples import Pair
from distill.methods.labs.made_up import made_up

Question = tuple[Sequence[int], Sequence[bool]]
"""A text's words, and which of them are denied."""
VERDICTS = ("good", "bad", "even")
STRENGTHS = (-2, -1, 1, 2)


class Opinions:
    """Words with a strength each; `not` turns the next one round. The verdict is the sign of the sum."""

    def __init__(self, rng: np.random.Generator, count: int, length: int, denied: float = 0.25) -> None:
        """`count` words, texts of `length` of them, of which the share `denied` has a `not` before it."""
        self.names = made_up(rng, count)
        self.strengths = [int(s) for s in rng.choice(STRENGTHS, count)]
        self.length, self.denied = length, denied
        most = max(STRENGTHS) * length
        self.text = [*self.names, "not", "?", "is", *VERDICTS, *(f"{n:+d}" for n in range(-most, most + 1))]
        """Every word that there is."""

    def draw(self, rng: np.random.Generator, count: int) -> list[Question]:
        """So many texts."""
        chosen = rng.integers(len(self.names), size=(count, self.length)).tolist()
        return list(zip(chosen, (rng.random((count, self.length)) < self.denied).tolist(), strict=True))

    def pair(self, question: Question) -> Pair:
        """A text with its verdict, and the steps to it: of every word its strength here and the sum so far."""
        total, said, steps = 0, [], []
        for word, denied in zip(*question, strict=True):
            strength = -self.strengths[word] if denied else self.strengths[word]
            total += strength
            said.append(f"not {self.names[word]}" if denied else self.names[word])
            steps.append(f"{strength:+d} {total:+d}")
        verdict = VERDICTS[0] if total > 0 else VERDICTS[1] if total < 0 else VERDICTS[2]
        return Pair(f"{' '.join(said)} ?", f"is {verdict}", " ".join(steps))
