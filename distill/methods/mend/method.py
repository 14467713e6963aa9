"""MEND: demonstrations as a few vectors that a frozen model reads in their place (arXiv 2403.06914).

A small language model reads demonstrations of any task and, after them, some learned placeholders; its last states at
those places, mapped to the frozen model's width where it is another, are the vectors. It learns that the frozen model
says the same of query and answer after the vectors as after the demonstrations (`teacher`), and says the right answer
(`labels`): first on plain text, whose beginning stands for demonstrations, by `teacher` alone, then on tasks by both.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from distill.core.collect import Collector, Student
from distill.core.objectives.base import Objective, OwnMasks, StudentOutput
from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.core.signals import DenseLogits
from distill.core.tables import FixedDomain, Rows
from distill.core.teachers import Batch, LocalModel, Teachers
from distill.language.student import Next
from distill.methods.method import Losses, MethodOptions, weighed

PARTS = ("labels", "teacher")
"""Losses in the order of the masks `[B, 2, T]`: the answer counts for the first, query and answer for the second."""


class CompressorConfig(PreTrainedConfig):
    """Of a `Compressor`: its language model's config as a mapping, its placeholders, the frozen model's width."""

    model_type = "mend_compressor"

    def __init__(
        self, model: Mapping[str, Any] | None = None, vectors: int = 100, width: int = 0, **others: Any
    ) -> None:
        super().__init__(**others)
        self.model, self.vectors, self.width = None if model is None else dict(model), vectors, width


class Compressor(PreTrainedModel):
    """Demonstrations `[B, P]` -> `vectors` of the frozen model's `width`, `[B, m, width]`.

    It is saved as a folder that `AutoModel` reads once this module has been imported.
    """

    config_class = CompressorConfig
    main_input_name = "tokens"

    def __init__(self, config: CompressorConfig) -> None:
        """Weights are random: see `around`."""
        super().__init__(config)
        own = AutoConfig.for_model(**(config.model or {}))
        self.model: Any = AutoModel.from_config(own)
        self.places = nn.Parameter(0.02 * torch.randn(config.vectors, own.hidden_size))
        self.map = nn.Linear(own.hidden_size, config.width) if own.hidden_size != config.width else None
        self.post_init()

    @classmethod
    def like(cls, model: Mapping[str, Any], vectors: int, width: int) -> "Compressor":
        """With random weights; `model` is a config of transformers as a mapping."""
        config = AutoConfig.for_model(**dict(model))
        return cls(CompressorConfig(json.loads(config.to_json_string(use_diff=False)), vectors, width))

    @classmethod
    def around(cls, model: Any, vectors: int, width: int) -> "Compressor":
        """With the weights of a language model, such as `AutoModel` reads them."""
        found = cls.like(model.config.to_dict(), vectors, width)
        found.model.load_state_dict(model.state_dict())
        return found

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """`seen` `[B, P]` says which tokens are no padding, which may stand on either side."""
        words = self.model.get_input_embeddings()(tokens)
        places = self.places.to(words.dtype).expand(len(words), -1, -1)
        states = self.model(inputs_embeds=torch.cat([words, places], 1), **_masked(seen, places.shape[1]))
        found = states.last_hidden_state[:, -places.shape[1] :]
        return found if self.map is None else torch.tanh(self.map(found))


AutoConfig.register(CompressorConfig.model_type, CompressorConfig, exist_ok=True)
AutoModel.register(CompressorConfig, Compressor, exist_ok=True)


class SharedPrompt(nn.Module):
    """The same vectors for every task: what prompt tuning learns, a control."""

    def __init__(self, vectors: int, width: int) -> None:
        super().__init__()
        self.settings = {"vectors": vectors, "width": width}
        self.vectors = nn.Parameter(0.02 * torch.randn(vectors, width))

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:  # noqa: ARG002 (what it is given is not looked at)
        """`[B, m, width]`."""
        return self.vectors.expand(len(tokens), -1, -1)


class Compressed(Student):
    """A compressor before a frozen model, which passes gradients on and is itself left as it is."""

    def __init__(self, module: nn.Module, frozen: Any) -> None:
        self.module, self.frozen = module, frozen.requires_grad_(False).eval()

    def outputs(self, module: nn.Module, batch: Mapping[str, Tensor]) -> StudentOutput:
        """Logits `[B, T, V]` of what follows in `tokens` `[B, T + 1]`, read after the vectors."""
        return StudentOutput(logits=after_vectors(self.frozen, module(batch["shown"], batch["seen"]), batch["tokens"]))


def after_vectors(frozen: Any, vectors: Tensor, tokens: Tensor) -> Tensor:
    """Logits `[B, T, V]` of a causal model that reads vectors `[B, m, D]` and then `tokens` `[B, T + 1]`."""
    words = frozen.get_input_embeddings()(tokens[:, :-1])
    found = frozen(inputs_embeds=torch.cat([vectors.to(words.dtype), words], 1), use_cache=False).logits
    return found[:, vectors.shape[1] :]


def after_demonstrations(frozen: Any, batch: Batch) -> Tensor:
    """The same of a model that reads the demonstrations `shown` `[B, P]`."""
    tokens = torch.cat([batch["shown"], batch["tokens"][:, :-1]], 1)
    masks = _masked(batch["seen"], batch["tokens"].shape[1] - 1)
    return frozen(input_ids=tokens, use_cache=False, **masks).logits[:, batch["shown"].shape[1] :]


def _masked(seen: Tensor, more: int) -> dict[str, Tensor]:
    """What says a model which tokens are there, and at which place each stands, with `more` after them."""
    after = torch.ones(len(seen), more, dtype=torch.int64, device=seen.device)
    mask = torch.cat([seen.long(), after], 1)
    return {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


def losses(options: MethodOptions, labels: float = 1.0, teacher: float = 1.0) -> Losses:
    """By weights: the first stage has no `labels`."""
    return weighed(labels=(labels, CrossEntropy()), teacher=(teacher, ForwardKL(temperature=options.temperature)))


def parts(
    compressor: nn.Module, frozen: Any, rows: Rows, parts_: Losses, held_out: Rows | None = None
) -> tuple[Student, Objective, Teachers, Sequence[Collector]]:
    """What `distill.core.fit.fit` is given.

    `rows`: `shown` and `seen` `[N, P]`, `tokens` `[N, T + 1]` of query and answer, `target` `[N, T]` the tokens that
    follow, `mask` `[N, 2, T]` by `PARTS`.
    """
    reader = LocalModel(frozen, lambda m, b: DenseLogits(after_demonstrations(m, b)), DenseLogits, "demonstrations")
    given = {"labels": Next("target"), "teacher": reader}
    table: list[Collector] = [FixedDomain("tasks", rows, held_out)]
    teachers = Teachers({name: given[name] for name in parts_})
    return Compressed(compressor, frozen), OwnMasks(parts_, PARTS), teachers, table
