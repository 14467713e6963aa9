"""FIRST: distilling a calibrated teacher's few likeliest tokens (arXiv 2408.12168).

On held-out rows, whose tokens are the truth, one scale is looked for at which the rescaled probabilities mean what they
say; the student matches them, with a bucket of 0 for all other tokens that holds its tail down.
"""

from collections.abc import Callable

import numpy as np
import torch

from distill.core.errors import DistillError
from distill.core.objectives.base import WeightedSum
from distill.core.objectives.divergences import TopKKL
from distill.core.objectives.topk import kept_mass, trustworthy, two_pass_search
from distill.core.signals import TopKLogits
from distill.core.tables import Epochs, FixedDomain
from distill.core.teachers import LocalModel
from distill.language.evaluate import calibration_error, over
from distill.methods.method import Losses, Material, Method, MethodOptions, Stage, by_size, learner, taught

Change = Callable[[TopKLogits, float], TopKLogits]
"""What is done to a head at a level above 0 and at most 1."""


def losses(options: MethodOptions) -> Losses:
    """KL over the head and one bucket for the rest."""
    return {"teacher": (1.0, TopKKL())}


def head_error(head: TopKLogits, labels: np.ndarray) -> float:
    """Calibration error of a head `[N, K]` where `labels` `[N]` are true; those outside of it are mistakes."""
    found = head.indices.numpy() == labels[:, None]
    return calibration_error(head.log_probs.exp().numpy(), np.where(found.any(1), found.argmax(1), -1))


def calibrated(head: TopKLogits, labels: np.ndarray, change: Change = trustworthy) -> float:
    """The level at which the changed head has the least calibration error."""
    return two_pass_search(lambda level: head_error(change(head, level), labels))


def held_out_heads(material: Material, k: int) -> tuple[TopKLogits, np.ndarray]:
    """The teacher's `k` likeliest tokens `[N, k]` at the held-out positions that count, and the true tokens `[N]`."""
    parts: list[torch.Tensor] = []
    labels: list[np.ndarray] = []
    for domain in material.domains:
        rows = domain.held_out

        def measure(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            found = TopKLogits.from_logits(material.read(material.teacher, batch)[batch["mask"]], k)
            return torch.cat([found.log_probs, found.indices.to(found.log_probs), found.tail[:, None]], -1)

        parts.append(over(material.teacher, rows, measure, 8).cpu())
        labels.append(rows["tokens"][:, 1:][rows["mask"]])
    whole = torch.cat(parts)
    return TopKLogits(whole[:, :k], whole[:, k:-1].long(), whole[:, -1]), np.concatenate(labels)


def stage(method: Method, material: Material, options: MethodOptions) -> Stage:
    """Rows of the data with the teacher's head at the level that held-out rows ask for."""
    k = options.top_k
    if k > material.writing.vocabulary:
        raise DistillError(f"{k} tokens are more than the vocabulary of {material.writing.vocabulary}")
    head, labels = held_out_heads(material, k)
    level, parts = calibrated(head, labels), method.losses(options)
    teacher = LocalModel(
        material.teacher,
        lambda model, batch: trustworthy(TopKLogits.from_logits(material.read(model, batch), k), level),
        TopKLogits, f"top-{k} rescaled at {level}",
    )  # fmt: skip
    collectors = [FixedDomain(d.name, d.rows, d.held_out) for d in material.domains]
    found = {
        "level": level, "kept_mass": float(kept_mass(head).mean()), "error_before": head_error(head, labels),
        "error_after": head_error(trustworthy(head, level), labels),
    }  # fmt: skip
    return Stage(
        learner(material), WeightedSum(parts), taught(parts, teacher), collectors, Epochs(), by_size(material), found
    )


METHOD = Method(
    "first", "The teacher's likeliest tokens, rescaled so that they are calibrated on held-out data",
    "arXiv 2408.12168", losses, reads=("top_k",), stage=stage,
)  # fmt: skip
