"""Sentences about topics: text without labels in which words of a topic stand together, and a task with few labels."""

from dataclasses import dataclass

import numpy as np

PAD, MASK, FIRST = 0, 1, 2
"""Ids: padding, a hidden word, the first word."""


@dataclass(frozen=True)
class Topics:
    """Each topic has words of its own, half of them in one style of writing and half in another.

    A sentence has words of its topic, which is its class, words of none, and some of another topic.
    """

    topics: int = 12
    words: int = 16
    """Of each topic, both styles together."""
    common: int = 40
    """Words of no topic."""
    length: int = 10
    own: float = 0.35
    """Share of a sentence that is of its topic."""
    other: float = 0.15
    """Share that is of another one."""

    @property
    def vocabulary(self) -> int:
        """Token ids in all."""
        return FIRST + self.common + self.topics * self.words

    def draw(self, rng: np.random.Generator, count: int, style: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Tokens `[count, length]` and topics `[count]`; of a style, 0 or 1, or of both."""
        labels = rng.integers(self.topics, size=count)
        others = (labels + rng.integers(1, self.topics, count)) % self.topics
        half = self.words // 2
        word = rng.integers(self.words if style is None else half, size=(count, self.length)) + half * (style or 0)
        chance = rng.random((count, self.length))
        topic = np.where(chance < self.own, labels[:, None], others[:, None])
        tokens = FIRST + self.common + topic * self.words + word
        plain = FIRST + rng.integers(self.common, size=tokens.shape)
        return np.where(chance < self.own + self.other, tokens, plain), labels
