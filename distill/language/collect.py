"""Texts for the core's loop: those that teacher or student write, and those that a teacher labelled beforehand."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.core.collect import CollectionPlan, Experience, Student
from distill.core.errors import DistillError
from distill.core.signals import TopKLogits
from distill.core.tables import Rows, experience
from distill.core.teachers import Teacher
from distill.language.evaluate import batches
from distill.language.generation import generate
from distill.language.student import CompactTopK


class Generated:
    """A domain of prompts of one length that teacher and student continue, the teacher `plan.beta` of them.

    Every round writes new texts for `plan.rows` prompts, taken in turn: all of them again and again where there are
    fewer. Only what was written counts in the mask.
    """

    def __init__(
        self,
        name: str,
        prompts: np.ndarray,
        teacher: Any,
        student: Any,
        new_tokens: int,
        vocabulary: int,
        temperature: float = 1.0,
        end: int | None = None,
        pad: int = 0,
    ) -> None:
        """`prompts` `[N, P]`; `teacher` and `student` are causal models, the student's is the one that learns."""
        if not len(prompts):
            raise DistillError(f"the domain '{name}' has no prompts")
        self.name, self.prompts, self.teacher, self.student = name, prompts, teacher, student
        self.settings = (new_tokens, vocabulary)
        self.options = {"temperature": temperature, "end": end, "pad": pad}

    def collect(self, student: Student | None, plan: CollectionPlan) -> Experience:
        """`tokens` `[rows, P + new]` and `mask` `[rows, P + new - 1]`."""
        rng = np.random.default_rng(plan.seed)
        chosen = np.arange(plan.rows) % len(self.prompts)
        theirs = rng.permutation(plan.rows) < round(plan.beta * plan.rows)
        tokens = mask = None
        for who, (writer, rows) in enumerate(((self.teacher, theirs), (self.student, ~theirs))):
            if not rows.any():
                continue
            prompts = torch.from_numpy(self.prompts[chosen[rows]])
            written, fresh = generate(writer, prompts, *self.settings, seed=plan.seed + who, **self.options)
            if tokens is None or mask is None:
                tokens = np.zeros((plan.rows, written.shape[1]), np.int64)
                mask = np.zeros((plan.rows, written.shape[1] - 1), bool)
            tokens[rows], mask[rows] = written.numpy(), fresh.numpy()
        assert tokens is not None and mask is not None
        return experience({"tokens": tokens, "mask": mask}, None, {"written_tokens": float(mask.sum())})


def labelled(
    rows: Rows, teacher: Teacher, block: int = 64, device: torch.device | str = "cpu"
) -> dict[str, np.ndarray]:
    """Rows with a teacher's top-k logits written beside them: `log_probs`, `indices` `[N, T, K]`, `tail` `[N, T]`.

    Rows are asked for in order and in blocks, so that a cache around the teacher finds them again in the next epoch,
    for another student, and where an interrupted run goes on. Logarithms of 0 (all tokens are among the k, or the
    teacher rules some out) are written as the type's lowest number.
    """
    parts: dict[str, list[np.ndarray]] = {"log_probs": [], "indices": [], "tail": []}
    for batch in batches(rows, block):
        asked = {name: batch[name].to(device) for name in ("tokens", "positions") if name in batch}
        signal = teacher.label(asked)
        if not isinstance(signal, TopKLogits):
            raise DistillError(f"rows can be labelled with top-k logits, the teacher gives {signal.KIND}")
        for name, values in parts.items():
            found = getattr(signal, name).cpu()
            if found.is_floating_point():
                found = found.clamp(min=torch.finfo(found.dtype).min)
            values.append(found.numpy())
    parts["indices"] = [ids.astype(np.int32) for ids in parts["indices"]]
    return {**rows, **{name: np.concatenate(values) for name, values in parts.items()}}


class RecordedTopK:
    """The teacher of rows that `labelled` wrote."""

    kind = TopKLogits

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def label(self, batch: Mapping[str, Tensor]) -> TopKLogits:
        """The recorded top-k logits, in float32."""
        head, tail = (
            values.masked_fill(values <= torch.finfo(values.dtype).min, -torch.inf)
            for values in (batch["log_probs"], batch["tail"])
        )
        return CompactTopK(head, batch["indices"].long(), tail, self.temperature).wide()

    def fingerprint(self) -> str:
        """Nothing but the data decides the labels."""
        return "02"
