"""Instructions over three short words, models that answer them, and answers corrected where a teacher disagrees."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.core.objectives.granularity import NO_ERROR, error_positions
from distill.language.evaluate import log_probs
from distill.language.generation import generate
from distill.language.models import causal
from distill.language.text import characters
from distill.methods.multi_granularity.method import disagreement

LETTERS, WORD = "abcdefgh", 3
TASKS = {
    "s": lambda words: ["".join(sorted(word)) for word in words],
    "r": lambda words: [word[::-1] for word in words],
    "w": lambda words: words[::-1],
}
"""Letter of the instruction -> the right answer's words."""
PROMPT, ANSWER = 2 + 3 * WORD + 2 + 1, 3 * WORD + 2


class WordTasks:
    """Instructions such as `r:abc def gha=cba fed ahg`; every text is `PROMPT + ANSWER` characters long."""

    def __init__(self) -> None:
        self.tokens = characters([LETTERS + "srw:= "])
        self.vocabulary = self.tokens.size
        self.read = causal(self.vocabulary)

    def draw(self, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        """Rows of instructions with their right answers."""
        texts = []
        for _ in range(count):
            words = ["".join(rng.choice(list(LETTERS), WORD)) for _ in range(3)]
            task = str(rng.choice(list(TASKS)))
            texts.append(f"{task}:{' '.join(words)}={' '.join(TASKS[task](words))}")
        tokens = np.array([self.tokens.encode(text) for text in texts])
        return {"tokens": tokens, "mask": answered(count)}

    def write(self, model: Any, prompts: Tensor, seed: int, temperature: float = 1.0) -> Tensor:
        """Prompts `[N, P]`, or beginnings of answers, written to their end."""
        left = PROMPT + ANSWER - prompts.shape[1]
        return generate(model, prompts, left, self.vocabulary, seed, temperature)[0] if left else prompts

    def word_spans(self, tokens: Tensor) -> Tensor:
        """The number of its word `[N, T]` for every token but the first; -1 for a space."""
        spaces = torch.isin(tokens[:, 1:], torch.tensor(self.tokens.encode(" ")))
        return torch.where(spaces, -1, spaces.cumsum(1))

    def doubt(self, teacher: Any, tokens: Tensor) -> float:
        """The teacher's nats a token on answers."""
        rows = {"tokens": tokens.numpy(), "mask": answered(len(tokens))}
        total, count = log_probs(teacher, self.read, rows)
        return float(-total.sum() / count.sum())

    def errors(self, teacher: Any, student: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """KL(teacher || student), the teacher's likeliest tokens and the written ones, each `[N, answer]`."""
        kl, right = disagreement(self.read, teacher, student, tokens)
        return kl[:, PROMPT - 1 :], right[:, PROMPT - 1 :], tokens[:, PROMPT:]

    def corrected(self, teacher: Any, student: Any, tokens: Tensor, seed: int, by: Tensor | None = None) -> Tensor:
        """Answers in which one token became the teacher's and the student wrote on; `by` ranks places, or the KL."""
        kl, right, written = self.errors(teacher, student, tokens)
        places = error_positions(kl if by is None else by, written, right, torch.ones_like(written, dtype=torch.bool))
        found = tokens.clone()
        for place in sorted(set(places.tolist()) - {NO_ERROR}):
            rows = (places == place).nonzero().squeeze(-1)
            forced = torch.cat([tokens[rows, : PROMPT + place], right[rows, place : place + 1]], 1)
            found[rows] = self.write(student, forced, seed + place)
        return found

    def corrections(self, teacher: Any, student: Any, prompts: Tensor, first: int, again: int) -> dict[str, float]:
        """How a correction does without training: the teacher's `doubt` of a student's answers, written with the seed
        `first`; of answers written again, with the other seed; of the first ones corrected at a random error; and at
        the one of the largest KL."""
        tokens = self.write(student, prompts, first)
        anywhere = torch.rand(len(tokens), ANSWER, generator=torch.Generator().manual_seed(again))
        answers = {
            "none": tokens,
            "again": self.write(student, prompts, again),
            "random": self.corrected(teacher, student, tokens, again, anywhere),
            "largest": self.corrected(teacher, student, tokens, again),
        }
        return {f"doubt {name}": self.doubt(teacher, written) for name, written in answers.items()}


def answered(count: int) -> np.ndarray:
    """The mask `[count, T]` of rows in which the answer counts."""
    mask = np.zeros((count, PROMPT + ANSWER - 1), bool)
    mask[:, PROMPT - 1 :] = True
    return mask
