"""A server that scores tokens: its model's likeliest tokens at every position of texts that others wrote.

That is what on-policy distillation asks of a teacher that is too large for this machine. vLLM answers it at
`/v1/completions` with `prompt_logprobs`; servers that follow OpenAI's first completions answer `echo` and `logprobs`
with tokens as `token_id:N`. Texts are sent as token ids, so that nothing is split anew. Servers that do neither, such
as `transformers serve`, can only write texts (`client`).
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.signals import TopKLogits
from distill.core.teachers import Batch
from distill.language.endpoint.answers import canonical
from distill.language.endpoint.client import Endpoint, EndpointOptions, Failed, opened

LOWEST = 1e-8
"""Probability that the tokens beyond those told share at least: what float32 hides of them."""
DIFFERENT = 0.1
"""Share of a text's tokens that the server may spell otherwise before its tokenizer is taken for another one."""


@dataclass(frozen=True)
class Scores:
    """Of one text: for each token but the first, what the model says of its place."""

    indices: np.ndarray
    """`[T, K]`, ids; where the text's own token is not among the K likeliest, it stands in the place of the last."""
    log_probs: np.ndarray
    """`[T, K]`, natural logarithms."""
    names: Mapping[int, str]
    """How the server spells tokens of the text, where it does."""


class Scorer(Endpoint):
    """Sends texts as token ids and remembers what the server says of them."""

    def __init__(self, options: EndpointOptions, folder: Path | str, top_k: int) -> None:
        """`top_k`: tokens that are asked for at each position; servers have a limit (vLLM's `--max-logprobs`, 20).

        Raises `DistillError` as `Endpoint` does.
        """
        if top_k < 1:
            raise DistillError(f"a server is asked for 1 token at each position or more, got {top_k}")
        super().__init__(replace(options, max_tokens=1, temperature=1.0, logprobs=False), folder)
        self.top_k = top_k

    def score(self, texts: Sequence[Sequence[int]]) -> list[Scores]:
        """Of each text of two tokens or more. Raises what `Endpoint.complete` raises."""
        requests = [self._request(text) for text in texts]
        found = self._found(requests)
        return [found[canonical(request)] for request in requests]

    def fingerprint(self) -> str:
        """Of server, model and K."""
        about = ["scores", self.options.identity or self.options.base_url, self.options.model, self.top_k]
        return hashlib.sha256(canonical([*about, dict(self.options.extra)]).encode()).hexdigest()

    def _request(self, text: Sequence[int]) -> dict[str, Any]:
        about = {"endpoint": self.options.identity or self.options.base_url, "model": self.options.model}
        return {**about, "tokens": [int(i) for i in text], "top_k": self.top_k, "extra": dict(self.options.extra)}

    def _bound(self, request: Mapping[str, Any]) -> tuple[int, int, int]:
        size = len(request["tokens"])
        return size, size + 1, 1

    def _create(self, request: Mapping[str, Any]) -> Any:
        create: Any = self._client.completions.with_streaming_response.create
        own = {"prompt_logprobs": request["top_k"], "return_tokens_as_token_ids": True, **request["extra"]}
        return create(
            model=request["model"], prompt=request["tokens"], max_tokens=1, temperature=0.0, echo=True,
            logprobs=request["top_k"], extra_body=own,
        )  # fmt: skip

    def _read(self, body: bytes, request: dict[str, Any], most: tuple[int, int]) -> dict[str, Any]:
        data, counts, known = opened(body, most)
        billed = None if counts == [None, None] else (known[0], known[1])
        tokens = request["tokens"]
        try:
            choice = data["choices"][0]
            places, names = _vllm(choice, tokens), {}
            if places is None:
                places = _echoed(choice, tokens)
            else:
                names = _names(choice, tokens)
            if places is None:
                raise Failed("gives no log-probabilities of the texts that it is sent (vLLM does)", False, None, billed)
            rows = [_chosen(place, own, self.top_k) for place, own in zip(places, tokens[1:], strict=True)]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise Failed(f"gives log-probabilities that cannot be read ({error})", True, None, billed) from error
        return {
            "indices": [[index for index, _ in row] for row in rows],
            "log_probs": [[value for _, value in row] for row in rows],
            "names": names, "prompt_tokens": known[0], "completion_tokens": known[1],
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }  # fmt: skip

    def _value(self, answer: Mapping[str, Any]) -> Scores:
        names = {int(token): str(name) for token, name in answer["names"].items()}
        return Scores(np.array(answer["indices"], np.int64), np.array(answer["log_probs"], np.float64), names)


class ScoringTeacher:
    """The server as a teacher of the loop: the likeliest tokens at the positions of a batch that count."""

    kind = TopKLogits

    def __init__(self, scorer: Scorer, spell: Callable[[int], str]) -> None:
        """`spell` gives a token's text in the student's tokenizer, with which the server's is compared."""
        self.scorer, self.spell = scorer, spell

    def label(self, batch: Batch) -> TopKLogits:
        """Of `tokens` `[B, T + 1]`, of which those that `mask` `[B, T]` lets count are asked for; examples that share a
        row, by `positions`, are asked for apart.

        Raises:
          DistillError: what the server refuses, or a server that has another tokenizer.
        """
        tokens = batch["tokens"].cpu().numpy()
        mask = batch["mask"].cpu().numpy() if "mask" in batch else np.ones(tokens[:, 1:].shape, bool)
        positions = batch["positions"].cpu().numpy() if "positions" in batch else None
        spans = [
            (row, first, last)
            for row in range(len(tokens))
            for first, last in _spans(mask[row], None if positions is None else positions[row])
        ]
        scores = self.scorer.score([tokens[row, first : last + 1].tolist() for row, first, last in spans])
        self._compare(scores)
        k = max((found.indices.shape[1] for found in scores), default=1)
        shape = (*mask.shape, k)
        indices = np.broadcast_to(np.arange(k), shape).copy()
        log_probs = np.full(shape, -np.log(k + 1.0))  # what is not asked for does not count
        for (row, first, last), found in zip(spans, scores, strict=True):
            indices[row, first:last], log_probs[row, first:last] = found.indices, found.log_probs
        rest = np.log(np.maximum(1 - np.exp(log_probs).sum(-1), LOWEST))
        norm = np.logaddexp(np.logaddexp.reduce(log_probs, -1), rest)
        device = batch["tokens"].device

        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values.astype(np.float32)).to(device)

        heads = tensor(log_probs - norm[..., None])
        return TopKLogits(heads, torch.from_numpy(indices).to(device), tensor(rest - norm))

    def fingerprint(self) -> str:
        """The server's."""
        return self.scorer.fingerprint()

    def _compare(self, scores: Sequence[Scores]) -> None:
        wrong, count, example = 0, 0, ""
        for found in scores:
            for token, name in found.names.items():
                own = self.spell(token)
                if "\ufffd" in name or "\ufffd" in own or not name.strip():  # half a character, or a space
                    continue
                count += 1
                if name.strip() != own.strip():
                    wrong, example = wrong + 1, f"token {token} is {name!r} there and {own!r} here"
        if wrong > DIFFERENT * count:
            raise DistillError(f"the server's model has another tokenizer than the student: {example}")


def _spans(mask: np.ndarray, positions: np.ndarray | None) -> list[tuple[int, int]]:
    """First and last token of each example of a row, as far as its predictions count, `[first, last]`."""
    begins = [0, len(mask)]
    if positions is not None:
        begins = sorted({*begins, *np.flatnonzero(positions == 0).tolist()})
    found: list[tuple[int, int]] = []
    for first, after in pairwise(begins):
        learned = np.flatnonzero(mask[first:after])
        if len(learned):
            found.append((first, first + int(learned[-1]) + 1))
    return found


def _vllm(choice: Mapping[str, Any], tokens: Sequence[int]) -> list[dict[int, float]] | None:
    """Id -> log-probability at each place after the first, of vLLM's `prompt_logprobs`; None where there are none."""
    told = choice.get("prompt_logprobs")
    if told is None:
        return None
    if len(told) != len(tokens):
        raise ValueError(f"{len(told)} places for {len(tokens)} tokens")
    return [{int(i): _number(v["logprob"] if isinstance(v, Mapping) else v) for i, v in p.items()} for p in told[1:]]


def _names(choice: Mapping[str, Any], tokens: Sequence[int]) -> dict[str, str]:
    """How the server spells the text's own tokens."""
    told = [place.get(str(token)) for place, token in zip(choice["prompt_logprobs"][1:], tokens[1:], strict=True)]
    names = {str(t): v.get("decoded_token") for t, v in zip(tokens[1:], told, strict=True) if isinstance(v, Mapping)}
    return {token: name for token, name in names.items() if isinstance(name, str) and name}


def _echoed(choice: Mapping[str, Any], tokens: Sequence[int]) -> list[dict[int, float]] | None:
    """The same of `logprobs` with the prompt echoed; None where tokens are no ids."""
    told = choice.get("logprobs") or {}
    names, own, most = (told.get(name) or [] for name in ("tokens", "token_logprobs", "top_logprobs"))
    if len(names) < len(tokens) or not all(str(name).startswith("token_id:") for name in names[: len(tokens)]):
        return None
    ids = [_id(name) for name in names[: len(tokens)]]
    if ids != list(tokens):
        raise ValueError("it echoes another text")
    return [
        {**{_id(name): _number(value) for name, value in (most[i] or {}).items()}, ids[i]: _number(own[i])}
        for i in range(1, len(tokens))
    ]


def _id(name: str) -> int:
    return int(str(name).removeprefix("token_id:"))


def _number(value: Any) -> float:
    number = float(value)
    if not (number <= 1e-3 and number == number):
        raise ValueError(f"a log-probability of {number}")
    return max(number, -1e4) if isfinite(number) else -1e4


def _chosen(place: Mapping[int, float], own: int, k: int) -> list[tuple[int, float]]:
    """K tokens with their log-probabilities: the likeliest, the text's own among them."""
    if own not in place:
        raise ValueError(f"nothing of the text's own token {own}")
    others = sorted(((v, -i) for i, v in place.items() if i != own), reverse=True)
    kept = [(-i, v) for v, i in others[: k - 1]]
    # the likeliest k if the own token is among them, else it takes the last one's place: every place has as many
    chosen = [*kept, (own, place[own])]
    if len(chosen) < k:
        raise ValueError(f"{len(place)} tokens at a place in place of {k}: the server's limit is lower")
    if np.exp([value for _, value in chosen]).sum() > 1.001:
        raise ValueError("probabilities that are no distribution")
    return sorted(chosen, key=lambda item: (-item[1], item[0]))
