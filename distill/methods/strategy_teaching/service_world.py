"""A customer service in small: customers of 24 types, what each needs turn by turn, and how satisfied they leave."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

MOODS, PROBLEMS, STAGES = 4, 6, 5
TYPES = MOODS * PROBLEMS
ACTS = (
    "apologise", "ask", "refund", "explain", "replace", "escalate", "thank", "reassure", "track", "discount", "repair",
    "close",
)  # fmt: skip
SYNONYMS = 4
"""Words of each mood, problem and stage."""
SAYS, END = ":", "."
"""What stands before an act, and after it."""
ORDER_COST = 0.1
"""Of satisfaction, for a share of acts that would have fitted later."""


def topic_words(kind: str, count: int) -> list[list[str]]:
    """Made-up words of each topic."""
    return [[f"{kind}{i}{'abcdefgh'[j]}" for j in range(SYNONYMS)] for i in range(count)]


@dataclass
class Customer:
    """One dialogue."""

    type: int
    turns: int
    stage: int = 0
    """How many acts have fitted so far; an act that does not fit leaves the customer where he is."""
    fitting: list[bool] = field(default_factory=list[bool])
    early: int = 0
    """Acts that would have fitted later."""

    @property
    def satisfaction(self) -> float:
        """Share of turns with a fitting act, later turns weighing more, less the cost of acts that came too early."""
        weights = np.arange(1, len(self.fitting) + 1)
        return float(weights @ np.array(self.fitting) / weights.sum() - ORDER_COST * self.early / len(self.fitting))


class ServiceWorld:
    """Each type needs five acts in an order of its own, which a seed decides."""

    def __init__(self, rng: np.random.Generator, noise: float = 0.1) -> None:
        """`noise`: chance that a word of a customer's has nothing to do with it."""
        self.noise = noise
        self.plans = np.stack([rng.permutation(len(ACTS))[:STAGES] for _ in range(TYPES)])
        self.moods, self.problems = topic_words("mood", MOODS), topic_words("problem", PROBLEMS)
        self.stages = topic_words("stage", STAGES)
        self.plain = [word for topics in (self.moods, self.problems, self.stages) for topic in topics for word in topic]
        self.vocabulary = [*self.plain, *ACTS, SAYS, END]

    def topics(self, kind: int, stage: int) -> tuple[list[str], list[str], list[str]]:
        """All words of mood, problem and stage."""
        return self.moods[kind // PROBLEMS], self.problems[kind % PROBLEMS], self.stages[stage]

    def drawn(
        self, rng: np.random.Generator, kinds: np.ndarray, stages: np.ndarray, noise: float | None = None
    ) -> np.ndarray:
        """Places in `plain` `[N, 6]` of what customers `[N]` say: two words of each topic, in any order."""
        topics = np.stack([kinds // PROBLEMS, MOODS + kinds % PROBLEMS, MOODS + PROBLEMS + stages], 1)
        two = rng.random((*topics.shape, SYNONYMS)).argsort(-1)[..., :2]
        found = (SYNONYMS * topics[..., None] + two).reshape(len(kinds), -1)
        off = rng.random(found.shape) < (self.noise if noise is None else noise)
        found = np.where(off, rng.integers(len(self.plain), size=found.shape), found)
        return rng.permuted(found, axis=1)

    def words(
        self, rng: np.random.Generator, states: Sequence[tuple[int, int]], noise: float | None = None
    ) -> list[str]:
        """What customers of a type at a stage say."""
        if not states:
            return []
        kinds, stages = np.array(states).T
        places = self.drawn(rng, kinds, stages, noise)
        return [" ".join(self.plain[int(i)] for i in row) for row in places]

    def right(self, kind: int, stage: int) -> str:
        """The fitting act."""
        return ACTS[int(self.plans[kind, stage])]

    def customers(self, rng: np.random.Generator, count: int) -> list[Customer]:
        """Of all types, for three to five turns."""
        return [Customer(int(rng.integers(TYPES)), int(rng.integers(3, 6))) for _ in range(count)]

    def react(self, customer: Customer, act: str) -> None:
        """The customer hears an act."""
        plan = [ACTS[int(i)] for i in self.plans[customer.type]]
        fits = act == plan[customer.stage]
        customer.early += act in plan[customer.stage + 1 :]
        customer.fitting.append(fits)
        customer.stage = min(customer.stage + fits, STAGES - 1)

    def common(self, stage: int) -> str:
        """The act that fits most types at a stage."""
        return ACTS[int(np.bincount(self.plans[:, stage], minlength=len(ACTS)).argmax())]


def record(lines: Sequence[tuple[str, str]]) -> str:
    """Handled tickets as text: what was said, what was done."""
    return " ".join(f"{said} {SAYS} {act} {END}" for said, act in lines)
