"""Chains of named operators on digits: composing them is a skill, what a rare one does is knowledge."""

from collections import Counter
from collections.abc import Sequence
from copy import copy

import numpy as np

from distill.language.examples import Pair
from distill.methods.labs.made_up import made_up

KINDS = ("adds", "takes", "turns")
"""value + n, value - n and n - value, modulo 10."""


class OperatorWorld:
    """Operators with a fixed rule each, drawn by Zipf's law: most of them hardly ever occur."""

    def __init__(self, rng: np.random.Generator, operators: int, exponent: float) -> None:
        self.names = made_up(rng, operators)
        self.rules = {each: drawn(rng) for each in range(operators)}
        weights = np.arange(1, operators + 1.0) ** -exponent
        self.shares = weights / weights.sum()
        self.text = [*self.names, *KINDS, *map(str, range(10)), "to", "then", "gives", "is", "answer:", "."]
        """Every word that there is."""

    def draw(self, rng: np.random.Generator, count: int) -> list[tuple[int, list[int]]]:
        """First value and two or three operators of so many questions."""
        return [
            (int(rng.integers(10)), rng.choice(len(self.names), int(rng.integers(2, 4)), p=self.shares).tolist())
            for _ in range(count)
        ]

    def among(self, rng: np.random.Generator, count: int, common: Sequence[int], rare: Sequence[int] = ()) -> list:
        """Questions of two operators of `common`, or of one of them and one of `rare`."""
        found: list[tuple[int, list[int]]] = []
        for _ in range(count):
            two = [int(rng.choice(common)), int(rng.choice(rare or common))]
            found.append((int(rng.integers(10)), two if rng.random() < 0.5 else two[::-1]))
        return found

    def practice(self, rng: np.random.Generator, count: int) -> list[Pair]:
        """Questions after rules that are drawn for each alone: how rules are used, and none of this world's."""
        other, found = copy(self), list[Pair]()
        for _ in range(count):
            operators = rng.choice(len(self.names), int(rng.integers(2, 4)), replace=False).tolist()
            other.rules = {each: drawn(rng) for each in operators}
            known = other.knowledge(rng.permutation(operators).tolist())
            found.append(other.pair((int(rng.integers(10)), operators), known))
        return found

    def rule(self, operator: int) -> str:
        """What it does, in words."""
        kind, number = self.rules[operator]
        return f"{self.names[operator]} {kind} {number} ."

    def states(self, text: str, operator: int) -> bool:
        """Whether a text has an operator's rule."""
        return f" {self.rule(operator)} " in f" {text} ".replace("\n", " ")

    def knowledge(self, operators: Sequence[int]) -> str:
        """The rules of different operators."""
        return " ".join(self.rule(each) for each in dict.fromkeys(operators))

    def apply(self, operator: int, value: int) -> int:
        """The next value."""
        kind, number = self.rules[operator]
        return {"adds": value + number, "takes": value - number, "turns": number - value}[kind] % 10

    def pair(self, question: tuple[int, list[int]], knowledge: str = "") -> Pair:
        """A question with its chain of thought, which names each rule before it is used, and its answer."""
        value, operators = question
        steps: list[str] = []
        for each in operators:
            value = self.apply(each, value)
            steps.append(f"{self.rule(each)} gives {value}")
        names = " then ".join(self.names[each] for each in operators)
        return Pair(f"{names} to {question[0]}", f"is {value}", " ".join(steps), knowledge)


def drawn(rng: np.random.Generator) -> tuple[str, int]:
    """A rule: its kind and its number."""
    return str(rng.choice(KINDS)), int(rng.integers(1, 10))


def counts(questions: Sequence[tuple[int, list[int]]]) -> Counter[int]:
    """How often each operator occurs."""
    return Counter(each for _, operators in questions for each in operators)
