"""A world in which truth is exact: a random network is the oracle, a teacher and a student learned few of its texts."""

from typing import Any

import numpy as np
import torch

from distill.language.evaluate import divergence
from distill.language.generation import generate
from distill.language.models import causal
from distill.language.window import WindowModel
from distill.methods.framework import Trial
from distill.methods.labs.text_lab import learn_rows


class OracleTexts:
    """Oracle, teacher, the student's start, and fixed texts on which distances are measured."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.settings = trial, trial.settings
        s = self.settings
        self.read = causal(s.symbols)
        self.oracle = self.network(s.oracle, 1, s.peak)
        texts = self.write(self.oracle, self.prompts(trial.scaled(s.texts, 40), 2), 3)
        self.teacher = self.learn(self.network(s.teacher, 4), texts, s.teacher_steps)
        self.start = self.learn(self.student(), texts, s.start_steps).state_dict()
        held_out = self.prompts(s.held_out, 6)
        self.texts = {
            name: self.write(model, held_out, 7) for name, model in (("oracle", self.oracle), ("teacher", self.teacher))
        }
        self.teacher_golden = divergence(self.oracle, self.teacher, self.read, self.texts["oracle"])

    def network(self, width: int, stream: int, scale: float = 1.0) -> WindowModel:
        """One of so many hidden units that sees the whole prompt at every position."""
        s = self.settings
        return WindowModel(s.symbols, s.window, width, self.trial.number(stream), scale, prefix=s.prompt)

    def student(self) -> WindowModel:
        """The student with this seed's random weights."""
        return self.network(self.settings.student, 5)

    def prompts(self, count: int, stream: int) -> np.ndarray:
        """`[count, prompt]`, every symbol as likely."""
        return self.trial.rng(stream).integers(self.settings.symbols, size=(count, self.settings.prompt))

    def write(self, model: WindowModel, prompts: np.ndarray, stream: int) -> dict[str, np.ndarray]:
        """Rows of texts that a model continued."""
        s = self.settings
        found = generate(model, torch.from_numpy(prompts), s.answer, s.symbols, self.trial.number(stream))
        return {"tokens": found[0].numpy(), "mask": found[1].numpy()}

    def learn(self, model: WindowModel, rows: dict[str, np.ndarray], steps: int) -> WindowModel:
        """Maximum likelihood on texts."""
        options: Any = {"batch": self.settings.batch, "learning_rate": self.settings.learning_rate}
        learn_rows(self.trial, model, self.read, {"texts": rows}, steps, **options)
        return model

    def distances(self, model: Any, teacher: Any) -> dict[str, float]:
        """Nats a token on held-out prompts: `proxy` KL(teacher || student), `truth` KL(oracle || student)."""
        texts = self.texts["oracle" if teacher is self.oracle else "teacher"]
        return {
            "proxy": divergence(teacher, model, self.read, texts),
            "truth": divergence(self.oracle, model, self.read, self.texts["oracle"]),
        }

    def reverse(self, model: Any, teacher: Any) -> dict[str, float]:
        """The same the other way: KL(student || teacher), KL(student || oracle), along the same texts."""
        texts = self.texts["oracle" if teacher is self.oracle else "teacher"]
        return {
            "reverse_proxy": divergence(teacher, model, self.read, texts, "reverse"),
            "reverse_truth": divergence(self.oracle, model, self.read, self.texts["oracle"], "reverse"),
        }
