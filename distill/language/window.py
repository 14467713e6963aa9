"""The smallest causal model: one hidden layer on the last few tokens. Exact truths and many seeds are cheap with it."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn


class WindowModel(nn.Module):
    """Next-token logits from the last `window` tokens and the text's first `prefix` ones, called and cached as the
    causal models of transformers are."""

    def __init__(
        self, vocabulary: int, window: int, width: int, seed: int = 0, scale: float = 1.0, prefix: int = 0
    ) -> None:
        """`scale` multiplies the logits of a fresh model: the larger, the more peaked what it says."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.vocabulary, self.window, self.prefix = vocabulary, window, prefix
        self.settings = {"vocabulary": vocabulary, "window": window, "width": width, "prefix": prefix}
        """What a folder must say of it, beside its weights."""
        seen = window + prefix
        first = torch.randn(seen * vocabulary + 1, width, generator=generator) / seen**0.5
        first[-1] = 0.0  # what stands before a text begins
        self.first = nn.Parameter(first)
        self.bias = nn.Parameter(torch.zeros(width))
        self.last = nn.Linear(width, vocabulary)
        with torch.no_grad():
            self.last.weight.copy_(scale * torch.randn(vocabulary, width, generator=generator) / width**0.5)
            self.last.bias.zero_()

    def forward(self, input_ids: Tensor, cache: Tensor | None = None, use_cache: bool = False) -> SimpleNamespace:
        """`logits` `[B, T, V]` for ids `[B, T]`; the cache is the text's first ids, as far as they are known, and those
        of the window before."""
        if cache is None:
            cache = input_ids.new_full((len(input_ids), self.prefix + self.window - 1), -1)
        begun, before = cache[:, : self.prefix], cache[:, self.prefix :]
        known = int((begun[:1] >= 0).sum())
        missing = min(self.prefix - known, input_ids.shape[1])
        begun = torch.cat([begun[:, :known], input_ids[:, :missing], begun[:, known + missing :]], 1)
        ids = torch.cat([before, input_ids], 1)
        windows = ids.unfold(1, self.window, 1)
        if self.prefix:
            steps = torch.arange(input_ids.shape[1], device=ids.device)
            at = torch.arange(self.prefix, device=ids.device) < known + 1 + steps[:, None]
            windows = torch.cat([windows, torch.where(at, begun[:, None, :], -1)], 2)
        places = windows + self.vocabulary * torch.arange(windows.shape[2], device=ids.device)
        places = torch.where(windows < 0, len(self.first) - 1, places)
        hidden = torch.tanh(self.first[places].sum(-2) + self.bias)
        seen = torch.cat([begun, ids[:, ids.shape[1] - self.window + 1 :]], 1)
        return SimpleNamespace(logits=self.last(hidden), cache=seen if use_cache else None)
