"""Batched sampling with a key-value cache: equal seeds give equal texts, whatever torch's own generator did before."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from distill.core.errors import DistillError


@torch.no_grad()
def generate(
    model: Any,
    prompts: Tensor,
    new_tokens: int,
    vocabulary: int,
    seed: int,
    temperature: float = 1.0,
    end: int | None = None,
    pad: int = 0,
    batch: int = 512,
    beside: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Continues prompts of one length with a causal model.

    Args:
      prompts: `[N, P]`, int64 ids, no padding.
      vocabulary: the tokenizer's size: ids beyond it are never drawn.
      temperature: 0 takes the likeliest token.
      end: the token that ends a text; what follows is `pad`.
      beside: what the model is given with the prompts, such as `pixel_values`: argument -> `[N, ...]`.

    Returns:
      `tokens` `[N, P + new_tokens]` and `mask` `[N, P + new_tokens - 1]`: True where a generated token, the end with
      it, is predicted.

    Raises:
      DistillError: impossible settings, or logits that are not finite.
    """
    if prompts.ndim != 2 or not prompts.shape[1] or new_tokens < 1 or temperature < 0:
        raise DistillError(
            f"cannot generate {new_tokens} tokens at temperature {temperature} for prompts {list(prompts.shape)}"
        )
    model.eval()
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)  # drawn on the CPU: the same numbers on every device
    parts: list[Tensor] = []
    for first in range(0, max(len(prompts), 1), batch):
        with_it = {name: values[first : first + batch].to(device) for name, values in (beside or {}).items()}
        part = prompts[first : first + batch].to(device)
        parts.append(_continue(model, part, new_tokens, vocabulary, generator, temperature, end, pad, with_it))
    tokens = torch.cat(parts).cpu()
    fresh = torch.zeros(tokens.shape[0], tokens.shape[1] - 1, dtype=torch.bool)
    fresh[:, prompts.shape[1] - 1 :] = True
    if end is not None:
        ended = (tokens[:, prompts.shape[1] :] == end).cumsum(1)
        before = torch.cat([torch.zeros_like(ended[:, :1]), ended[:, :-1]], 1)
        fresh[:, prompts.shape[1] - 1 :] = before == 0
    return tokens, fresh


def _continue(
    model: Any, prompts: Tensor, count: int, vocabulary: int, generator: torch.Generator,
    temperature: float, end: int | None, pad: int, beside: Mapping[str, Tensor],
) -> Tensor:  # fmt: skip
    tokens, inputs, cache = prompts, prompts, None
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"  # by transformers' age
    done = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)
    for _ in range(count):
        found = model(input_ids=inputs, use_cache=True, **{name: cache}, **beside)
        cache, beside = getattr(found, name), {}
        logits = found.logits[:, -1, :vocabulary].float()
        if not logits.isfinite().all():
            raise DistillError("a model that writes texts gave logits that are not finite")
        drawn = _draw(logits, generator, temperature)
        drawn = torch.where(done, torch.full_like(drawn, pad), drawn)
        if end is not None:
            done |= drawn == end
        inputs = drawn[:, None]
        tokens = torch.cat([tokens, inputs], 1)
        if done.all():
            rest = torch.full((len(tokens), prompts.shape[1] + count - tokens.shape[1]), pad, device=tokens.device)
            return torch.cat([tokens, rest], 1)
    return tokens


def _draw(logits: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
    """`[N]` of logits `[N, V]`: the likeliest after Gumbel noise, which samples the softmax exactly."""
    if temperature == 0:
        return logits.argmax(-1)
    uniform = torch.rand(logits.shape, generator=generator).clamp_(min=1e-20).to(logits.device)
    return (logits / temperature - (-uniform.log()).log()).argmax(-1)
