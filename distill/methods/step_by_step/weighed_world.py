"""A small world for reasoning: entities weigh the sum of two attributes, a question asks which of two is heavier."""

import numpy as np

from distill.language.packing import answers

PAD, END, PREDICT, EXPLAIN, YES, NO, NUMBER = range(7)
HIGHEST = 9
"""Of an attribute; numbers up to twice that are tokens from NUMBER on, entities come after them."""
ENTITY = NUMBER + 2 * HIGHEST + 1


class World:
    """Entities with their attributes, and pairs to ask for: tested ones, and others to learn from."""

    def __init__(self, rng: np.random.Generator, entities: int, test: int, train: int) -> None:
        """`test` and `train` are numbers of pairs `[N, 2]`; none of a test is seen in training, in either order."""
        self.entities, self.vocabulary = entities, ENTITY + entities
        self.attributes = rng.integers(HIGHEST + 1, size=(entities, 2))
        weight = self.attributes.sum(1)
        pairs = np.array([(a, b) for a in range(entities) for b in range(entities) if weight[a] != weight[b]])
        pairs = rng.permutation(pairs)
        self.test = pairs[:test]
        tested = {tuple(sorted(pair)) for pair in self.test.tolist()}
        rest = [pair for pair in pairs[test:].tolist() if tuple(sorted(pair)) not in tested]
        self.train = np.array(rest[:train])

    def prompt(self, pair: np.ndarray, task: int) -> list[int]:
        """Task, first and second entity."""
        return [task, *(ENTITY + pair).tolist()]

    def label(self, pair: np.ndarray) -> list[int]:
        """Whether the first is heavier."""
        first, second = self.attributes[pair].sum(1)
        return [YES if first > second else NO]

    def rationale(self, pair: np.ndarray) -> list[int]:
        """Both entities' attributes and their sums."""
        return [NUMBER + int(n) for x, y in self.attributes[pair] for n in (x, y, x + y)]

    def sums(self, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        """Rows of the same words that say nothing of this world: entity, two numbers, their sum."""
        x, y = rng.integers(HIGHEST + 1, size=(2, count))
        who = ENTITY + rng.integers(self.entities, size=count)
        numbers = [[NUMBER + int(n) for n in (a, b, a + b)] for a, b in zip(x, y, strict=True)]
        return rows([[int(w)] for w in who], numbers)


def rows(prompts: list[list[int]], targets: list[list[int]]) -> dict[str, np.ndarray]:
    """Rows of one view, as `language.packing.answers` makes them."""
    return answers(prompts, targets, 11, END, PAD)
