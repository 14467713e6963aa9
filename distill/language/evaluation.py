"""What a distilled student is, beside its teacher: on each domain's held-out rows, in speed and in size."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from distill.core.collect import Student
from distill.core.tables import Rows
from distill.language.evaluate import batches, calibration_of, likeliest, log_probs
from distill.language.writing import answers

ASKED = 32
"""Held-out prompts of a domain that are answered, at most: writing is the slowest of all that is measured."""
ANSWER = 128
"""Tokens of a true answer that are written for it, at most."""


def measured(model: Any, reader: Student, rows: Rows, writing: Mapping[str, Any] | None) -> dict[str, float]:
    """A model on held-out rows `tokens` `[N, T + 1]` and `mask` `[N, T]`, one example each.

    Returns:
      `perplexity`, `accuracy` (share of learned tokens that are the likeliest) and `calibration_error` of the likeliest
      token's probability; `exact_match`, where rows have a prompt and an answer of `ANSWER` tokens or fewer: the share
      of them that the model writes token by token when it always takes the likeliest. `writing` (`vocabulary`, `ends`,
      `pad`) is given to `writing.answers`; None leaves it out.
    """
    total, count = log_probs(model, reader, rows, 8)
    best, confidence = likeliest(model, reader, rows, 8)
    mask = rows["mask"]
    right = best == rows["tokens"][:, 1:]
    found = {
        "perplexity": float(np.exp(min(-total.sum() / count.sum(), 50.0))),
        "accuracy": float(right[mask].mean()),
        "calibration_error": calibration_of(confidence[mask], right[mask]),
    }
    if writing is None:
        return found
    asked = [pair for row, part in zip(rows["tokens"], mask, strict=True) if (pair := last_answer(row, part))]
    asked = [(prompt, _ended(answer, writing["ends"])) for prompt, answer in asked]
    asked = [(prompt, answer) for prompt, answer in asked if 0 < len(answer) <= ANSWER][:ASKED]
    if asked:
        most = max(len(answer) for _, answer in asked)  # what goes on beyond it is no match
        prompts = [prompt for prompt, _ in asked]
        written = answers(model, prompts, seed=0, temperature=0.0, new_tokens=most, **writing)
        found["exact_match"] = float(
            np.mean([text == answer for text, (_, answer) in zip(written, asked, strict=True)])
        )
    return found


def last_answer(tokens: np.ndarray, mask: np.ndarray) -> tuple[list[int], list[int]] | None:
    """A row's tokens before its last answer, and the answer; None where nothing stands before it but its start."""
    learned = np.flatnonzero(mask)
    if not len(learned):
        return None
    gaps = np.flatnonzero(np.diff(learned) > 1)
    first, last = int(learned[gaps[-1] + 1 if len(gaps) else 0]), int(learned[-1])
    if first < 1:
        return None
    return tokens[: first + 1].tolist(), tokens[first + 1 : last + 2].tolist()


def _ended(answer: list[int], ends: Sequence[int]) -> list[int]:
    """Up to its first end, which a template may put more behind; nothing where it has none."""
    place = next((i for i, token in enumerate(answer) if token in ends), -1)
    return answer[: place + 1]


@torch.no_grad()
def speed(model: Any, reader: Student, rows: Rows, size: int = 8, times: int = 3) -> float:
    """Tokens a second that a model reads, in batches of `size` rows: the best of some."""
    device = next(model.parameters()).device
    batch = {name: values.to(device) for name, values in next(iter(batches(rows, size))).items()}
    training = model.training
    model.eval()
    spent: list[float] = []
    for _ in range(times + 1):
        began = time.perf_counter()
        reader.outputs(model, batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent.append(time.perf_counter() - began)
    model.train(training)
    return batch["tokens"][:, 1:].numel() / min(spent[1:])


def table(found: Mapping[str, Any]) -> Sequence[str]:
    """Lines of a Markdown table of what was measured, a column a model; see `distil.evaluated`."""
    who = list(found["speed"])

    def line(name: str, values: Mapping[str, float], digits: int = 4) -> str:
        return f"| {name} | {' | '.join(f'{values[w]:.{digits}g}' for w in who)} |"

    lines = [f"| measure | {' | '.join(who)} |", f"|---|{'---|' * len(who)}"]
    for domain, models in found["domains"].items():
        for name in ("perplexity", "accuracy", "calibration_error", "exact_match"):
            if name in models[who[0]]:
                values = {w: models[w].get(name, float("nan")) for w in who}
                lines.append(line(f"{domain}: {name.replace('_', ' ')}", values))
    lines.append(line(f"tokens read a second ({found['device']})", found["speed"], 3))
    lines.append(line("weights, MB", found["megabytes"]))
    return lines
