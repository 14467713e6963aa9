"""LEADER: what a large text model thinks of a patient, in a small recommender (arXiv 2402.02803).

The teacher reads names of diagnoses, procedures and drugs; its state of the text is kept with the rows, once. The
student knows numbers only: sets of codes a visit, visits, a profile in the place of earlier drugs at a first visit.

| loss | of |
|---|---|
| `labels` | binary cross-entropy of every drug, of patients whose drugs are known |
| `features` | squared distance of the student's middle layer, through a learned map, from the teacher's state |
| `align` | InfoNCE between known drugs and profiles, so that a profile can stand for drugs at a first visit |

`barkour distill recommender` does that with a teacher and patients of one's own.

`align` has the positive among the others, as InfoNCE does; the public code leaves it out and can then fall below 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.core.collect import Collector, Student
from distill.core.errors import DistillError, first_line
from distill.core.objectives.base import Objective, RowsAndTokens, StudentOutput
from distill.core.objectives.contrast import Contrast, SameRow
from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.core.objectives.features import HiddenStateMatching
from distill.core.tables import FixedDomain, Rows
from distill.core.teachers import RecordedLogits, RecordedStates, Teachers
from distill.language.models import Read
from distill.language.student import ModelStudent, Next
from distill.methods.method import Losses, weighed

STREAMS = ("diagnoses", "procedures", "drugs")


@dataclass(frozen=True)
class Sizes:
    """Of a student."""

    diagnoses: int
    """Codes, from 1 on; 0 is no code. So of procedures and drugs."""
    procedures: int
    drugs: int
    profile: tuple[int, ...]
    """Values of each field."""
    width: int = 64
    heads: int = 4


class VisitRecommender(nn.Module):
    """Sets of codes -> visits -> a patient -> drugs. One transformer a kind of code, one that all share over visits."""

    def __init__(self, **sizes: Any) -> None:
        super().__init__()
        sizes["profile"] = tuple(sizes["profile"])
        self.sizes, self.settings = Sizes(**sizes), dict(sizes)
        d = self.sizes.width

        def layer() -> nn.Module:
            return nn.TransformerEncoderLayer(d, self.sizes.heads, 2 * d, 0.0, batch_first=True)

        self.codes: Any = nn.ModuleDict({s: nn.Embedding(getattr(self.sizes, s) + 1, d) for s in STREAMS})
        self.sets: Any = nn.ModuleDict({s: layer() for s in STREAMS})
        self.fields: Any = nn.ModuleList(nn.Embedding(n, d) for n in self.sizes.profile)
        self.profile = nn.Linear(d * len(self.sizes.profile), d)
        self.visits = layer()
        self.middle, self.last = nn.Linear(3 * d, 2 * d), nn.Linear(2 * d, self.sizes.drugs)

    def set_of(self, stream: str, codes: Tensor) -> Tensor:
        """`[..., D]` of sets `[..., C]`; of an empty one 0."""
        flat = codes.reshape(-1, codes.shape[-1])
        here = flat != 0
        some = here.any(1, keepdim=True)
        hidden = ~here & some  # an empty set is looked at whole, and then left out
        states = self.sets[stream](self.codes[stream](flat), src_key_padding_mask=hidden)
        mean = (states * here[..., None]).sum(1) / here.sum(1, keepdim=True).clamp(min=1)
        return mean.reshape(*codes.shape[:-1], -1)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`logits` `[B, M]`, `middle` `[B, 2D]`, `profile` `[B, D]`, from `diagnoses` and `procedures` `[B, V, C]`,
        `earlier` `[B, V - 1, C]`, the drugs of visits before the last, and `profile` `[B, F]`. The last visit is the
        one to prescribe for; visits that are none have no codes, and come first."""
        fields = [field(batch["profile"][:, i]) for i, field in enumerate(self.fields)]
        profile = self.profile(torch.cat(fields, -1))
        drugs = torch.cat([profile[:, None], self.set_of("drugs", batch["earlier"])], 1)
        there = (batch["diagnoses"] != 0).any(-1)
        streams = [self.set_of("diagnoses", batch["diagnoses"]), self.set_of("procedures", batch["procedures"]), drugs]
        known = [there, there, torch.cat([torch.ones_like(there[:, :1]), (batch["earlier"] != 0).any(-1)], 1)]
        means = [self._over_visits(x, seen) for x, seen in zip(streams, known, strict=True)]
        middle = self.middle(torch.cat(means, -1).relu())
        return {"logits": self.last(middle.relu()), "middle": middle, "profile": profile}

    def _over_visits(self, x: Tensor, seen: Tensor) -> Tensor:
        states = self.visits(x, src_key_padding_mask=~seen)
        return (states * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)


class Recommending(Student):
    """A `VisitRecommender` whose logits are two for each drug, and whose layers are middle, true drugs, profile."""

    def __init__(self, module: VisitRecommender, aligned: bool) -> None:
        self.module, self.recommender, self.aligned = module, module, aligned

    def outputs(self, module: nn.Module, batch: Mapping[str, Tensor]) -> StudentOutput:
        """Logits `[B, M, 2]`, layers `[B, D]`; the true drugs are looked at where they are aligned alone."""
        found = module(batch)
        layers = [found["middle"]]
        if self.aligned:
            layers += [self.recommender.set_of("drugs", drugs_of(batch["label"])), found["profile"]]
        return StudentOutput(logits=two(found["logits"]), hidden=tuple(layers))


def two(scores: Tensor) -> Tensor:
    """Logits `[..., 2]` whose softmax is the sigmoid."""
    return torch.stack([torch.zeros_like(scores), scores], -1)


def drugs_of(labels: Tensor) -> Tensor:
    """Sets of codes `[B, M]`, 0 for none, of labels `[B, M]`."""
    return labels * torch.arange(1, labels.shape[1] + 1, device=labels.device)


class PatientReader(nn.Module):
    """A language model that reads a patient as text, and a layer without bias from its state to every drug."""

    def __init__(self, model: Any, drugs: int) -> None:
        """`model`: any of `AutoModel`; whether it reads in both directions is asked of it.

        Raises:
          DistillError: a model that gives no state of each token.
        """
        super().__init__()
        self.model, self.mean = model, looks_ahead(model)
        self.head = nn.Linear(model.config.get_text_config().hidden_size, drugs, bias=False)

    def state(self, batch: Mapping[str, Tensor]) -> Tensor:
        """`[B, D]` of `tokens` and `seen` `[B, T]`: a causal model's at the last token, the mean of others'."""
        count = batch["seen"].sum(1).clamp(min=1)
        most = int(count.max())
        seen, tokens = batch["seen"][:, :most], batch["tokens"][:, :most]
        states = self.model(input_ids=tokens, attention_mask=seen.long()).last_hidden_state
        if self.mean:
            return (states * seen[..., None]).sum(1) / count[:, None]
        return states[torch.arange(len(seen), device=seen.device), count - 1]

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits `[B, M]`."""
        return self.head(self.state(batch).to(self.head.weight.dtype))


@torch.no_grad()
def looks_ahead(model: Any) -> bool:
    """Whether a model's state of a token depends on later ones: asked of it with two texts that end differently.

    Raises:
      DistillError: it gives no state of each token.
    """
    training = model.training
    model.eval()
    try:
        tokens = torch.tensor([[1, 2, 3, 1], [1, 2, 3, 2]], device=next(model.parameters()).device)
        states = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError) as error:
        reason = first_line(error)
        raise DistillError(f"a {type(model).__name__} cannot read a text: {reason}") from error
    finally:
        model.train(training)
    return not torch.allclose(states[0, :2].float(), states[1, :2].float(), atol=1e-5)


def taught(
    teacher: nn.Module, read: Read, rows: Rows, held_out: Rows | None = None
) -> tuple[Student, Objective, Teachers | Next, Sequence[Collector]]:
    """What `distill.core.fit.fit` is given to make a teacher of a model: binary cross-entropy of every drug.

    `read` gives logits `[B, M]`; `rows` are what it reads, `label` `[N, M]`, and perhaps `mask` `[N, M]`.
    """
    learner = ModelStudent(teacher, lambda model, batch: two(read(model, batch)))
    return learner, CrossEntropy(), Next("label"), [FixedDomain("patients", rows, held_out)]


def standardised(states: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """States `[N, D]` so that those of `like`, by default their own, have mean 0 and deviation 1 in each place: the
    weight of `features` then means the same whatever the teacher."""
    like = states if like is None else like
    return ((states - like.mean(0)) / (like.std(0) + 1e-6)).astype(np.float32)


def losses(width: int, teacher: int, features: float = 0.4, align: float = 0.0, outputs: float = 0.0) -> Losses:
    """By weights; `width` and `teacher` are those of the student's middle layer and of the teacher's state.

    `outputs` weighs KL of each drug's probability at temperature 2, what a teacher's logits are commonly used for.
    """
    return weighed(
        labels=(1.0, CrossEntropy()),
        features=(features, HiddenStateMatching({0: 0}, (width, teacher))),
        align=(align, Contrast()),
        outputs=(outputs, ForwardKL(temperature=2.0, scale_by_temperature=True)),
    )


def parts(
    student: VisitRecommender, rows: Rows, parts_: Losses, held_out: Rows | None = None
) -> tuple[Student, Objective, Teachers, Sequence[Collector]]:
    """What `distill.core.fit.fit` is given.

    `rows`: what `VisitRecommender` reads, `label` `[N, M]` with 1 for each drug, `mask` `[N, M]`, False throughout for
    patients whose drugs are not known; `states` `[N, D]` and `logits` `[N, M, 2]` of the teacher where losses ask.
    """
    given = {"labels": Next("label"), "features": RecordedStates(), "align": SameRow(), "outputs": RecordedLogits()}
    objective = RowsAndTokens(parts_, ("features", "outputs"), known=("align",))
    teachers = Teachers({name: given[name] for name in parts_})
    return Recommending(student, "align" in parts_), objective, teachers, [FixedDomain("patients", rows, held_out)]
