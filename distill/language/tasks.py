"""Small classification tasks whose truth is known, so that labels can be flipped and errors be exact."""

from dataclasses import dataclass

import numpy as np

from distill.core.errors import DistillError


@dataclass(frozen=True)
class Unigrams:
    """Sentences of words drawn from one of several word distributions; the class is which.

    The posterior over classes is known exactly. Token ids begin at 1, 0 is left for padding.
    """

    classes: int = 6
    words: int = 40
    length: int = 8
    scale: float = 0.9
    """Of the normal scores whose softmax is a class's word distribution: the larger, the easier."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.classes, self.words) < 2 or self.length < 1:
            raise DistillError(f"a task needs 2 classes and words and a length of 1 at least: {self}")

    @property
    def vocabulary(self) -> int:
        """Token ids, padding with them."""
        return self.words + 1

    def log_words(self) -> np.ndarray:
        """`[classes, words]`, log-probabilities."""
        scores = self.scale * np.random.default_rng([self.seed, 51]).standard_normal((self.classes, self.words))
        return scores - np.log(np.exp(scores).sum(1, keepdims=True))

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens `[count, length]` int64 and classes `[count]`."""
        labels = rng.integers(self.classes, size=count)
        edges = np.exp(self.log_words()).cumsum(1)
        words = (rng.random((count, self.length))[..., None] > edges[labels][:, None, :-1]).sum(-1)
        return words + 1, labels

    def posterior(self, tokens: np.ndarray) -> np.ndarray:
        """`[N, classes]`, the probability of each class given the tokens `[N, length]`."""
        score = self.log_words().T[tokens - 1].sum(1)
        score = np.exp(score - score.max(1, keepdims=True))
        return score / score.sum(1, keepdims=True)


def flipped(labels: np.ndarray, classes: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Labels of which that share, drawn at random, became another class, each other one as likely."""
    other = (labels + rng.integers(1, classes, len(labels))) % classes
    return np.where(rng.random(len(labels)) < share, other, labels)
