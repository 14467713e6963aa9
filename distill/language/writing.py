"""Rows that models write anew in every round, on prompts of different lengths, beside rows of the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from distill.core.collect import CollectionPlan, Experience, Student
from distill.core.errors import DistillError
from distill.core.tables import Rows, experience
from distill.language.encoding import Encoded, padded_rows


@torch.no_grad()
def answers(
    model: Any,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    vocabulary: int,
    ends: Sequence[int],
    pad: int,
    seed: int,
    temperature: float = 1.0,
    batch: int = 32,
) -> list[list[int]]:
    """What a causal model writes after each prompt, the end with it where it comes within `new_tokens`.

    Prompts of a batch are padded on their left. Tokens are drawn from the model's own distribution over the first
    `vocabulary` ids (temperature 0: the likeliest), whatever its generation config says; `seed` decides them, and
    torch's own generator stays as it was.
    """
    device = next(model.parameters()).device
    beyond = list(range(vocabulary, model.config.get_text_config().vocab_size))
    config = GenerationConfig(
        max_new_tokens=new_tokens, do_sample=temperature > 0, pad_token_id=pad, eos_token_id=list(ends),
        suppress_tokens=beyond or None, **({"temperature": temperature, "top_k": 0} if temperature > 0 else {}),
    )  # fmt: skip
    model.eval()
    found: list[list[int]] = []
    kept, model.generation_config = model.generation_config, config  # generate fills gaps from the model's own
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for first in range(0, len(prompts), batch):
                part = prompts[first : first + batch]
                longest = max(map(len, part))
                tokens = torch.full((len(part), longest), pad)
                seen = torch.zeros((len(part), longest), dtype=torch.int64)
                for row, prompt in enumerate(part):
                    tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
                    seen[row, longest - len(prompt) :] = 1
                written = model.generate(
                    input_ids=tokens.to(device), attention_mask=seen.to(device), generation_config=config
                )
                found += [_until(row, ends) for row in written[:, longest:].cpu().numpy()]
    finally:
        model.generation_config = kept
    return found


def _until(row: np.ndarray, ends: Sequence[int]) -> list[int]:
    places = np.flatnonzero(np.isin(row, list(ends)))
    return [int(token) for token in (row[: places[0] + 1] if len(places) else row)]


class Written:
    """A domain of which a share of each round's rows is written by the student, a share by the teacher."""

    def __init__(
        self,
        name: str,
        rows: Rows,
        held_out: Rows,
        prompts: Sequence[Sequence[int]],
        writers: Sequence[tuple[Any, float]],
        length: int,
        new_tokens: int,
        vocabulary: int,
        ends: Sequence[int],
        pad: int,
        part: float = 1.0,
        whose: Sequence[int] = (),
    ) -> None:
        """`writers`: models with their shares; what is left are `rows` of the data, one example each. `held_out` is
        brought along in every round. `part` of the planned rows is brought, that of this domain among several. `whose`
        says of each prompt which of several teachers it is."""
        if not prompts:
            raise DistillError(f"the domain '{name}' has no prompt that leaves room for {new_tokens} tokens")
        self.name, self.rows, self.held_out, self.prompts = name, rows, held_out, prompts
        self.writers, self.length, self.pad, self.part, self.whose = writers, length, pad, part, whose
        self.options = {"new_tokens": new_tokens, "vocabulary": vocabulary, "ends": ends, "pad": pad}

    def collect(self, student: Student | None, plan: CollectionPlan) -> Experience:
        """About `plan.rows` rows: every prompt once before any comes again."""
        rng, wanted = np.random.default_rng(plan.seed), max(round(self.part * plan.rows), 1)
        parts: list[Rows] = []
        count = {"written_tokens": 0, "ended": 0, "answers": 0}
        for who, (model, share) in enumerate(self.writers):
            places = in_turn(rng, len(self.prompts), round(share * wanted))
            chosen = [self.prompts[i] for i in places]
            if chosen:
                texts = answers(model, chosen, seed=plan.seed + who, **self.options)
                encoded = [
                    Encoded(
                        [*prompt, *text],
                        [False] * len(prompt) + [True] * len(text),
                        self.whose[i] if self.whose else None,
                    )
                    for i, prompt, text in zip(places, chosen, texts, strict=True)
                ]
                parts.append(padded_rows(encoded, self.length, self.pad))
                count["written_tokens"] += sum(map(len, texts))
                count["ended"] += sum(bool(text) and text[-1] in self.options["ends"] for text in texts)
                count["answers"] += len(texts)
        left = wanted - count["answers"]
        if left > 0:
            places = in_turn(rng, len(self.rows["tokens"]), left)
            parts.append({name: values[places] for name, values in self.rows.items()})
        joined = {name: np.concatenate([part[name] for part in parts]) for name in self.rows}
        measured = {"written_tokens": float(count["written_tokens"])}
        if count["answers"]:
            measured["ended"] = count["ended"] / count["answers"]
        return experience(joined, self.held_out, measured)


def in_turn(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """`count` places of so many, in random order, every one once before any comes again."""
    passes = [rng.permutation(size) for _ in range(-(-count // size))]
    return np.concatenate(passes)[:count] if passes else np.zeros(0, np.int64)
