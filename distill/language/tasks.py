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
    uneven: float = 0.0
    """How much classes differ in difficulty: the standard deviation of the logarithm of their scales."""

    def __post_init__(self) -> None:
        if min(self.classes, self.words) < 2 or self.length < 1:
            raise DistillError(f"a task needs 2 classes and words and a length of 1 at least: {self}")

    @property
    def vocabulary(self) -> int:
        """Token ids, padding with them."""
        return self.words + 1

    def log_words(self) -> np.ndarray:
        """`[classes, words]`, log-probabilities."""
        rng = np.random.default_rng([self.seed, 51])
        scores = self.scale * rng.standard_normal((self.classes, self.words))
        if self.uneven:
            scores *= np.exp(self.uneven * rng.standard_normal((self.classes, 1)))
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


def draw_labels(labels: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places of so many labels of each class, or of all that there are, in random order."""
    places = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in enumerate(wanted)]
    return rng.permutation(np.concatenate(places))


class WordChains:
    """A stand-in for a teacher that writes: a chain of words for each class, learned from texts of that class."""

    def __init__(self, tokens: np.ndarray, labels: np.ndarray, classes: int, noise: float) -> None:
        self.classes, self.noise, self.length = classes, noise, tokens.shape[1]
        self.starts: list[list[int]] = [[] for _ in range(classes)]
        self.follow: list[dict[int, list[int]]] = [{} for _ in range(classes)]
        self.log_words = np.zeros((classes, int(tokens.max()) + 1))
        for text, label in zip(tokens.tolist(), labels.tolist(), strict=True):
            kept = [word for word in text if word]
            self.starts[label].append(kept[0])
            for a, b in zip(kept, [*kept[1:], 0], strict=True):
                self.follow[label].setdefault(a, []).append(b)
            np.add.at(self.log_words[label], kept, 1)
        self.log_words = np.log((self.log_words + 0.1) / (self.log_words + 0.1).sum(1, keepdims=True))

    def write(self, label: int, rng: np.random.Generator, near: int | None = None) -> np.ndarray:
        """A text of the class (sometimes of another), `[length]`; of four the one most like the class `near`."""
        if rng.random() < self.noise or not self.starts[label]:
            label = int(rng.choice([c for c in range(self.classes) if self.starts[c]]))
        texts = np.stack([self._chain(label, rng) for _ in range(1 if near is None else 4)])
        if near is None:
            return texts[0]
        gap = [(self.log_words[label] - self.log_words[near])[text[text > 0]].sum() for text in texts]
        return texts[int(np.argmin(gap))]

    def _chain(self, label: int, rng: np.random.Generator) -> np.ndarray:
        text, word = np.zeros(self.length, np.int64), int(rng.choice(self.starts[label]))
        for place in range(self.length):
            text[place] = word
            word = int(rng.choice(self.follow[label].get(word) or [0]))
            if not word:
                break
        return text
