"""Scores of whole sequences, and choices by them: difference sampling (MiniPLM, arXiv 2410.17215), hard negatives
(PGKD, arXiv 2411.05045), and the steps that a method may take for equal compute."""

import math

import numpy as np
import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.objectives.base import Objective, StudentOutput, choice, counted
from distill.core.objectives.divergences import CrossEntropy
from distill.core.signals import SampledLogProbs, TeacherSignal


@torch.no_grad()
def sequence_sums(
    objective: Objective, student: StudentOutput, signal: TeacherSignal, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sums `[B]` of the losses of each sequence's elements `[B, T]` that count, and how many those are `[B]`.

    With a token-level KL along samples, that is a sequence-level KL's estimate. In float64, without gradients.
    """
    objective.require(type(signal))
    like, shape = objective.elements(student, signal)
    if len(shape) != 2:
        raise DistillError(f"sequences have elements of the shape [B, T], got {list(shape)}")
    rows, _ = counted(shape, like.device, mask, None)
    losses = objective.losses(student, signal, rows, mask).double()
    sequence = rows // shape[1]
    totals = losses.new_zeros(shape[0]).index_add(0, sequence, losses)
    return totals, torch.bincount(sequence, minlength=shape[0])


def sequence_log_probs(student: StudentOutput, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """log p(x) `[B]`, summed over the tokens `[B, T]` that count, and their numbers `[B]`.

    The student's logits `[B, T, V]` at a position are those *of* its token, shifted already.
    """
    totals, counts = sequence_sums(CrossEntropy(), student, SampledLogProbs.labels(tokens), mask)
    return -totals, counts


def difference_scores(teacher: np.ndarray, reference: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """r(x) = log p(x) - log p_ref(x), `[n]`, in nats; a difference, not a ratio of log-probabilities.

    About 0: easy for both. Large: the teacher knows what the small reference model does not. Negative: likely noise.
    Where sequences differ in length give their `lengths` for a mean per token; without them long ones weigh more.
    """
    teacher, reference = _finite("teacher's log-probabilities", teacher), _finite("reference's", reference)
    if teacher.shape != reference.shape:
        raise DistillError(f"{len(teacher)} scores of the teacher and {len(reference)} of the reference do not pair up")
    if lengths is None:
        return teacher - reference
    lengths = np.asarray(lengths)
    if lengths.shape != teacher.shape or not (lengths > 0).all():
        raise DistillError("every sequence needs a length above 0")
    return (teacher - reference) / lengths


def top_fraction(scores: np.ndarray, keep: float, exclude: np.ndarray | None = None) -> np.ndarray:
    """Places of the highest `keep` of the scores `[n]`, in the order of the corpus: hard selection, without weights.

    `exclude` `[n]`, booleans: what the reference model was trained on. It is never chosen, its scores are not read, and
    `keep` is a share of the rest (rounded half up). Of equal scores the earlier ones are kept.
    """
    if not 0 < keep <= 1:
        raise DistillError(f"the share to keep must be above 0 and at most 1, got {keep}")
    scores = np.asarray(scores, float)
    open_to = np.arange(len(scores)) if exclude is None else np.flatnonzero(~_booleans("exclude", exclude, len(scores)))
    if not len(open_to):
        raise DistillError("there is nothing to choose from: every sequence is excluded")
    _finite("scores", scores[open_to])
    count = math.floor(keep * len(open_to) + 0.5)
    order = np.argsort(-scores[open_to], kind="stable")
    return np.sort(open_to[order[:count]])


def matched_steps(steps: int, student: float, teacher: float, method: str = "kd") -> int:
    """Steps that cost as much compute as `steps` of plain training, of models of so many parameters (MiniPLM).

    `kd`: one teacher pass for each of the student's, 3 N_s T / (3 N_s + N_t). `minillm`: the student samples and both
    score, 3 N_s T / (4 N_s + 2 N_t).
    """
    choice("method", method, ("kd", "minillm"))
    if steps < 1 or not (student > 0 and teacher > 0):
        raise DistillError(f"steps and sizes must be above 0, got {steps}, {student} and {teacher}")
    cost = 3 * student + teacher if method == "kd" else 4 * student + 2 * teacher
    return max(1, round(3 * student * steps / cost))


def hard_negatives(probabilities: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` most confident mistakes, most confident first; fewer where there are fewer.

    `probabilities` `[n, C]`, `labels` `[n]`: argmax is not the label, and the probability of the argmax is high. Such
    samples are often wrong labels: look at them.
    """
    probabilities, labels = np.asarray(probabilities, float), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise DistillError(
            f"probabilities [n, C] and labels [n] do not fit: {list(probabilities.shape)}, {list(labels.shape)}"
        )
    confidence = probabilities.max(-1)
    wrong = np.flatnonzero(probabilities.argmax(-1) != labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][: max(0, count)]


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    if not np.isfinite(values).all():
        raise DistillError(f"{name} must be finite, but {int((~np.isfinite(values)).sum())} are not")
    return values


def _booleans(name: str, values: np.ndarray, length: int) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype != bool or values.shape != (length,):
        raise DistillError(f"{name} must be {length} booleans, got {values.dtype} of shape {list(values.shape)}")
    return values
