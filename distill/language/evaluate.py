"""Held-out measures: perplexity, divergence between models, accuracy, calibration error, macro-F1."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.core.collect import Student
from distill.core.errors import DistillError
from distill.core.objectives.chunks import rows_at_once
from distill.core.objectives.divergences import CrossEntropy, ForwardKL, ReverseKL
from distill.core.objectives.rows import student_logits
from distill.core.signals import SampledLogProbs
from distill.core.tables import Rows
from distill.language.models import Read


def batches(rows: Rows, size: int) -> Any:
    """The rows in order, as batches of tensors."""
    count = len(next(iter(rows.values())))
    for first in range(0, count, size):
        yield {name: torch.from_numpy(np.asarray(values[first : first + size])) for name, values in rows.items()}


@torch.no_grad()
def over(module: nn.Module, rows: Rows, measure: Callable[[dict[str, Tensor]], Tensor], size: int = 64) -> Tensor:
    """`measure(batch)` for all rows in evaluation mode, one after the other; the module's modes stay as they were."""
    training, place = module.training, next(module.parameters(), torch.empty(0)).device
    module.eval()
    try:
        found = [
            measure({name: values.to(place) for name, values in batch.items()}).cpu() for batch in batches(rows, size)
        ]
        return torch.cat(found)
    finally:
        module.train(training)


def log_probs(module: nn.Module, read: Read | Student, rows: Rows, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Summed log-probability `[N]` (nats) of the tokens that count in each row, and how many they are `[N]`.

    A `Student` in place of `read` says how the module is read, perhaps without all logits at once.
    """

    def measure(batch: dict[str, Tensor]) -> Tensor:
        return torch.stack([_of_tokens(module, read, batch).sum(1), batch["mask"].sum(1).float()], 1)

    values = over(module, rows, measure, size).double().numpy()
    return values[:, 0], values[:, 1]


def token_log_probs(module: nn.Module, read: Read | Student, rows: Rows, size: int = 64) -> np.ndarray:
    """Log-probability `[N, T]` (nats) of each token that counts, 0 of others; `read` as for `log_probs`."""
    return over(module, rows, lambda batch: _of_tokens(module, read, batch), size).double().numpy()


def _of_tokens(module: nn.Module, read: Read | Student, batch: dict[str, Tensor]) -> Tensor:
    after = batch["tokens"][:, 1:]
    if isinstance(read, Student):
        places = batch["mask"].flatten().nonzero().squeeze(-1)
        found = -CrossEntropy().losses(read.outputs(module, batch), SampledLogProbs.labels(after), places, None)
        return torch.zeros(after.numel(), device=found.device).index_copy(0, places, found).reshape(after.shape)
    found = read(module, batch).float().log_softmax(-1)
    return found.gather(-1, after[..., None]).squeeze(-1) * batch["mask"]


def nats_per_token(module: nn.Module, read: Read | Student, rows: Rows, size: int = 64) -> float:
    """Mean cross-entropy over all tokens that count, `read` as for `log_probs`.

    Raises `DistillError` where none counts or it is not finite.
    """
    total, count = log_probs(module, read, rows, size)
    if not count.sum():
        raise DistillError("no token counts in the rows that a model is measured on")
    value = float(-total.sum() / count.sum())
    if not np.isfinite(value):
        raise DistillError(f"the cross-entropy on held-out text is {value}")
    return value


def likeliest(module: nn.Module, reader: Student, rows: Rows, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest tokens `[N, T]` and their probabilities `[N, T]`."""

    def measure(batch: dict[str, Tensor]) -> Tensor:
        output = reader.outputs(module, batch)
        wide = output.logits if output.lm_head is None else output.lm_head.T
        assert wide is not None
        vocabulary = wide.shape[-1]
        shape = batch["tokens"][:, 1:].shape
        places = torch.arange(shape.numel(), device=batch["tokens"].device)
        parts = places.split(rows_at_once(vocabulary, places.device, None))
        best = [student_logits(output, part).double().softmax(-1).max(-1) for part in parts]
        found = torch.stack([torch.cat([b.indices.double() for b in best]), torch.cat([b.values for b in best])], -1)
        return found.reshape(*shape, 2)

    values = over(module, rows, measure, size).numpy()
    return values[..., 0].astype(np.int64), values[..., 1]


def answered(said: Tensor, taught: Tensor, target: Tensor, answer: Tensor, compared: Tensor) -> Tensor:
    """What `answer_figures` adds up, `[B, 5]`, of the student's and the teacher's logits `[B, T, V]` and the tokens
    `[B, T]` that follow; `answer` `[B, T]` says which are of an answer, `compared` `[B, T]` where both are compared."""
    log_q, log_p = said.float().log_softmax(-1), taught.float().log_softmax(-1)
    nats = -log_q.gather(-1, target[..., None])[..., 0] * answer
    apart = (log_p.exp() * (log_p - log_q)).sum(-1) * compared
    right = ((log_q.argmax(-1) == target) | ~answer).all(1)
    return torch.stack([nats.sum(1), answer.sum(1), right, apart.sum(1), compared.sum(1)], 1)


def answer_figures(found: Tensor) -> dict[str, float]:
    """Of rows as `answered` gives them: `nats` a token of the answers, the share of answers that are the likeliest
    tokens throughout (`right`), and the `divergence` KL(teacher || student) in nats a token that is compared."""
    nats, tokens, right, apart, places = found.double().numpy().T
    return {
        "nats": float(nats.sum() / max(tokens.sum(), 1)), "right": float(right.mean()),
        "divergence": float(apart.sum() / max(places.sum(), 1)),
    }  # fmt: skip


def perplexities(module: nn.Module, read: Read, domains: Mapping[str, Rows]) -> dict[str, float]:
    """Domain -> exp of the mean nats per token."""
    return {name: float(np.exp(nats_per_token(module, read, rows))) for name, rows in domains.items()}


def divergence(first: nn.Module, second: nn.Module, read: Read, rows: Rows, direction: str = "forward") -> float:
    """KL(first || second) in nats, mean over the tokens that count; `direction` reverse gives KL(second || first)."""
    between = (ForwardKL() if direction == "forward" else ReverseKL()).between
    second_mode = second.training
    second.eval()

    def measure(batch: dict[str, Tensor]) -> Tensor:
        log_p, log_q = (read(model, batch).float().log_softmax(-1) for model in (first, second))
        return between(log_p.flatten(0, -2), log_q.flatten(0, -2)).reshape(log_p.shape[:-1])[batch["mask"]]

    try:
        return float(over(first, rows, measure).double().mean())
    finally:
        second.train(second_mode)


def class_probabilities(module: nn.Module, read: Read, rows: Rows, size: int = 256) -> np.ndarray:
    """`[N, C]`."""
    return over(module, rows, lambda batch: read(module, batch).float().softmax(-1), size).double().numpy()


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows `[N, C]` whose likeliest class is the label."""
    return float((probabilities.argmax(-1) == labels).mean())


def label_nats(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy (nats) of rows `[N, C]` with their labels; a probability below 1e-30 counts as that."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-30)).mean())


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error over `bins` equal bins of the likeliest class's probability: the mean over rows of
    |accuracy - confidence| of their bin."""
    return calibration_of(probabilities.max(-1), probabilities.argmax(-1) == labels, bins)


def calibration_of(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """As `calibration_error`, from the likeliest class's probability `[N]` and whether it was right `[N]`."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs((right[place == b]).mean() - confidence[place == b].mean()) * (place == b).sum() for b in set(place)]
    return float(sum(gaps) / len(right))


def f1_scores(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """F1 of each class `[classes]`; 0 for a class that is neither predicted nor there."""
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (labels, predicted), 1)
    hits, total = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
    return np.divide(2 * hits, total, out=np.zeros(classes), where=total > 0)


def macro_f1(predicted: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Mean F1 over the classes that occur among the labels."""
    return float(f1_scores(predicted, labels, classes)[np.unique(labels)].mean())
