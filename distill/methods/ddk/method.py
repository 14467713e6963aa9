"""DDK: the data mixture follows the domains in which the student lags its teacher (arXiv 2407.16154).

Each `--data` path is a domain. At the end of every round the student's perplexity on a domain's held-out rows is
divided by the teacher's, and the mixture moves there by equations 1 and 2; the first rows are drawn evenly.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distill.core.collect import CollectionPlan
from distill.core.mixture import Mixture
from distill.core.objectives.base import WeightedSum
from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.core.tables import Epochs, FixedDomain, Rows
from distill.language.evaluate import nats_per_token
from distill.language.models import Read
from distill.methods.method import Losses, Material, Method, MethodOptions, Stage, learner, signals, weighed

CLIP = 3.0
"""Perplexity ratios are cut here in the exponent: tiny models reach ratios that would take the whole mixture."""


def losses(options: MethodOptions) -> Losses:
    """Cross-entropy whole, and the divergence with the weight alpha beside it (equation 3, gamma there)."""
    teacher = ForwardKL(temperature=options.temperature)
    return {"labels": (1.0, CrossEntropy()), **weighed(teacher=(options.alpha, teacher))}


def lag(
    model: Any, read: Read, rows: Rows, aim: float, size: int = 64
) -> Callable[[CollectionPlan], Mapping[str, float]]:
    """What the mixture asks of a domain in every round: the student's perplexity there over `aim`, the teacher's."""
    return lambda plan: {"ratio": float(np.exp(nats_per_token(model, read, rows, size))) / aim}


def stage(method: Method, material: Material, options: MethodOptions) -> Stage:
    """Rows of the data, drawn by weights that follow the lag."""
    parts, read = method.losses(options), material.read
    aims = [float(np.exp(nats_per_token(material.teacher, read, d.held_out, 8))) for d in material.domains]
    collectors = [
        FixedDomain(d.name, d.rows, d.held_out, lag(material.student, read, d.held_out, aim, 8))
        for d, aim in zip(material.domains, aims, strict=True)
    ]
    mixture = Mixture([domain.name for domain in material.domains], options.smoothing, CLIP)
    return Stage(learner(material), WeightedSum(parts), signals(parts, material), collectors, Epochs(), mixture)


METHOD = Method(
    "ddk", "Distilling domain knowledge by re-weighting the data mixture", "arXiv 2407.16154", losses,
    reads=("alpha", "temperature", "smoothing"), defaults={"alpha": 0.2}, stage=stage, least_domains=2,
    mixes=True,
)  # fmt: skip
