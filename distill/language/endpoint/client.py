"""A black-box teacher behind an OpenAI-compatible chat endpoint: texts, and log-probabilities of its tokens.

Every answer goes to a cache on disk as soon as it is there, so that a run that was stopped, by Ctrl-C, by an error or
by its budget, asks nothing twice. The API key comes from an environment variable and is neither logged nor stored.
"""

import email.utils
import hashlib
import json
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import torch
from torch import Tensor

from distill.core.errors import DistillError, first_line
from distill.core.signals import SampledLogProbs, Text
from distill.core.teachers import Batch
from distill.language.endpoint.answers import AnswerCache, canonical
from distill.language.endpoint.limits import Ledger, Prices, RateLimit, Stopped, Usage, possible

log = logging.getLogger(__name__)

FINISHED = ("stop", "stop_sequence", "end_turn", "eos", "eos_token", "complete", "")
"""What servers say of an answer that came to its own end, some by nothing. Whatever else they say, it was cut,
filtered, called off or is a call of a tool."""
Prompt = str | Sequence[Mapping[str, str]]
"""What the user says, or a whole conversation of messages with `role` and `content`."""


@dataclass(frozen=True)
class EndpointOptions:
    """How the teacher is reached and asked, and what it may cost."""

    model: str
    """The endpoint's name of the model."""
    base_url: str = "https://api.openai.com/v1"
    key_variable: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the API key; None for servers that want none."""
    identity: str = ""
    """What answers are filed under besides the model, the base URL if empty; for a server that changes its address."""
    system: str = ""
    """A system message before every prompt given as text."""
    temperature: float = 1.0
    top_p: float | None = None
    max_tokens: int = 256
    """Most tokens of an answer."""
    max_tokens_name: str = "max_tokens"
    """The parameter's name; some models want `max_completion_tokens`."""
    seed: int | None = None
    """Sent along, plus the number of the sample; whether it is obeyed is the server's affair."""
    logprobs: bool = False
    """Ask for the log-probability of each token of the answer."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further parameters of the request's body, as the server wants them."""
    timeout_s: float = 60.0
    """Longest silence of the server."""
    retries: int = 5
    """After a timeout, a failed connection, status 408, 429 or 5xx, or an answer that cannot be read."""
    unfinished: Literal["refuse", "keep"] = "refuse"
    """An answer that was cut at `max_tokens`, refused, filtered or empty is paid and remembered. It is no text to learn
    from: `refuse` says so once all others are there; `keep` takes its text, perhaps none, with its finish reason."""
    largest_answer: int = 16 * 2**20
    """Bytes of a response's body; a longer one is given up."""
    backoff_s: float = 1.0
    """Wait before the first retry; doubled each time, with up to a quarter more at random."""
    longest_wait_s: float = 600.0
    """A server that asks for a longer wait (Retry-After) is given up."""
    requests_per_minute: float = inf
    tokens_per_minute: float = inf
    concurrency: int = 4
    """Requests under way at the same time."""
    prices: Prices | None = None
    budget: float = inf
    """Money, over all runs with the same folder; needs `prices`. No request is sent that may exceed it."""
    token_budget: float = inf
    """Prompt and completion tokens together, over all runs with the same folder."""

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise DistillError(f"base_url must be an http or https address, got {self.base_url!r}")
        if url.username or url.password:
            raise DistillError("base_url must not hold a user or password: give a key by its environment variable")
        if not self.model:
            raise DistillError("an endpoint needs the name of a model")
        if self.unfinished not in ("refuse", "keep"):
            raise DistillError(f"unfinished must be refuse or keep, got {self.unfinished!r}")
        for name, least in {"max_tokens": 1, "retries": 0, "concurrency": 1, "largest_answer": 1}.items():
            if getattr(self, name) < least:
                raise DistillError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("timeout_s", "requests_per_minute", "tokens_per_minute", "budget", "token_budget"):
            if not getattr(self, name) > 0:
                raise DistillError(f"{name} must be above 0, got {getattr(self, name)}")
        try:
            canonical(self.parameters())
        except (TypeError, ValueError) as error:
            raise DistillError(f"a request's parameters must be JSON: {error}") from error

    def parameters(self) -> dict[str, Any]:
        """What a request says besides model and messages, without the seed."""
        values = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            self.max_tokens_name: self.max_tokens,
            "logprobs": self.logprobs or None,
            "extra": dict(self.extra) or None,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Completion:
    """One answer."""

    text: str
    finish_reason: str
    """`stop`; `length` where it was cut at `max_tokens`; `content_filter`, `refusal`, or what else the server says."""
    tokens: tuple[tuple[str, float], ...] | None
    """Each token's text and log-probability (nats), or None where the endpoint gave none."""
    prompt_tokens: int
    completion_tokens: int

    @property
    def unfinished(self) -> str:
        """Why this is no text to learn from; nothing where it is one."""
        if self.finish_reason.lower() not in FINISHED:
            return self.finish_reason
        return "" if self.text.strip() else "empty"


class Endpoint:
    """Asks, waits, asks again, remembers and counts. Several threads may use one."""

    def __init__(self, options: EndpointOptions, folder: Path | str) -> None:
        """`folder` holds the answers and the account.

        Raises:
          DistillError: the `openai` package or the API key is missing, or a budget in money has no prices.
        """
        openai = _openai()
        self.options, self.folder, self._openai = options, Path(folder), openai
        self.cache = AnswerCache(self.folder / "answers")
        self.ledger = Ledger(self.folder / "usage.jsonl", options.prices, options.budget, options.token_budget)
        self.rate = RateLimit(options.requests_per_minute, options.tokens_per_minute)
        self.cached = self.retried = 0
        self._lock = threading.Lock()
        self._key = _key(options.key_variable)
        self._client = openai.OpenAI(
            api_key=self._key or "none", base_url=options.base_url, timeout=options.timeout_s, max_retries=0
        )

    @property
    def usage(self) -> Usage:
        """What all runs with this folder used; answers from the cache cost nothing."""
        return self.ledger.usage

    def fingerprint(self) -> str:
        """Differs where answers may differ: endpoint, model, system message and parameters."""
        o = self.options
        about = [o.identity or o.base_url, o.model, o.system, o.seed, o.parameters()]
        return hashlib.sha256(canonical(about).encode()).hexdigest()

    def generate(
        self, prompt: Prompt, n: int = 1, temperature: float | None = None, seed: int | None = None
    ) -> list[str]:
        """`n` answers to one prompt; the same ones when called again."""
        changes = {"temperature": temperature, "seed": seed}
        options = replace(self.options, **{name: value for name, value in changes.items() if value is not None})
        return [answer.text for answer in self._answers([_request(options, prompt, i) for i in range(n)])]

    def complete(self, prompts: Sequence[Prompt], sample: int = 0) -> list[Completion]:
        """One answer for each prompt, in their order; another `sample` number is another draw.

        Raises `DistillError`, in one line, for what the server refuses, for what fails after all retries and at the end
        of the budget. Requests under way are waited for, and all answers so far are kept.
        """
        return self._answers([_request(self.options, prompt, sample) for prompt in prompts])

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _answers(self, requests: list[dict[str, Any]]) -> list[Completion]:
        found = self._found(requests)
        bad = Counter(reason for answer in found.values() if (reason := answer.unfinished))
        if bad and self.options.unfinished == "refuse":
            why = ", ".join(f"{count} {reason}" for reason, count in bad.items())
            raise DistillError(
                f"{bad.total()} of {len(found)} answers of the endpoint {self.options.base_url} are no texts to learn "
                f"from ({why}); all are kept in {self.folder}: allow more tokens, leave those prompts out, or take the "
                "answers as they are with unfinished='keep'"
            )
        return [found[canonical(request)] for request in requests]

    def _found(self, requests: list[dict[str, Any]]) -> dict[str, Any]:
        """Request, as `canonical` writes it -> what `_value` makes of its answer, from the cache or the server."""
        by_key = {canonical(request): request for request in requests}  # equal requests are asked once
        found = {key: value for key, request in by_key.items() if (value := self._remembered(request)) is not None}
        self.cached += len(found)
        missing = {key: request for key, request in by_key.items() if key not in found}
        if missing:
            found |= self._ask_all(missing, len(found))
        return found

    def _remembered(self, request: dict[str, Any]) -> Any:
        answer = self.cache.get(request)
        return None if answer is None else self._value(answer)

    # what is particular to chats, and other with a server that scores texts (`scoring`)

    def _value(self, answer: Mapping[str, Any]) -> Any:
        """What callers get for an answer as it is cached."""
        return _completion(answer)

    def _bound(self, request: Mapping[str, Any]) -> tuple[int, int, int]:
        """Tokens of a request: those about expected of its prompt, the most that they can be, the most of an answer."""
        size = sum(len(str(m["content"]).encode()) for m in request["messages"])
        overhead = 64 + 8 * len(request["messages"])
        return size // 4 + overhead, size + overhead, self.options.max_tokens  # a token is at least one byte

    def _create(self, request: Mapping[str, Any]) -> Any:
        """The response, as a context, read bit by bit so that its size can be bounded."""
        parameters = dict(request["parameters"])
        extra = parameters.pop("extra", None)
        create: Any = self._client.chat.completions.with_streaming_response.create
        return create(model=request["model"], messages=request["messages"], extra_body=extra, **parameters)

    def _read(self, body: bytes, request: dict[str, Any], most: tuple[int, int]) -> dict[str, Any]:
        """The answer of a response's body, as it is cached. Raises `Failed` where there is none in it."""
        return _read(body, request, most)

    def _ask_all(self, requests: dict[str, dict[str, Any]], known: int) -> dict[str, Any]:
        stop, found = threading.Event(), {}
        problem: DistillError | None = None

        def attempt(request: dict[str, Any]) -> Any:
            try:
                return self._ask(request, stop)
            except DistillError:
                stop.set()  # here, so that this thread begins no other request
                raise

        with ThreadPoolExecutor(self.options.concurrency) as pool:
            futures: dict[Future[Any], str] = {pool.submit(attempt, request): key for key, request in requests.items()}
            try:
                for future in as_completed(futures):
                    try:
                        found[futures[future]] = future.result()
                    except Stopped:
                        pass
                    except DistillError as error:
                        problem = problem or error
            finally:
                stop.set()  # also for Ctrl-C: nobody waits for a turn any more
        if problem is not None:
            kept = f"{known + len(found)} of {known + len(requests)} answers are kept in {self.folder}"
            raise DistillError(f"{problem}; {kept}") from problem
        return found

    def _ask(self, request: dict[str, Any], stop: threading.Event) -> Any:
        """One answer, with retries; it is in the cache and the account when this returns."""
        expected, *bounds = self._bound(request)
        most = bounds[0], bounds[1]
        jitter = random.Random(canonical(request))
        attempts = self.options.retries + 1
        for attempt in range(1, attempts + 1):
            if stop.is_set():
                raise Stopped
            number = self.ledger.reserve(*most)
            try:
                ticket = self.rate.acquire(expected + most[1], stop)
                answer = self._once(request, most)
                self.ledger.settle(number, answer["prompt_tokens"], answer["completion_tokens"])
            except Failed as failed:
                if failed.billed is None:
                    self.ledger.release(number)
                else:  # paid, although nothing can be read in it
                    self.ledger.settle(number, *failed.billed)
                if not failed.again or attempt == attempts:
                    tries = f" (tried {attempt} times)" if attempt > 1 else ""
                    raise DistillError(f"the endpoint {self.options.base_url} {failed}{tries}") from failed
                self._wait(failed, self.options.backoff_s * 2 ** (attempt - 1) * (1 + jitter.random() / 4), stop)
                continue
            except BaseException:
                self.ledger.release(number)
                raise
            self.rate.settle(ticket, answer["prompt_tokens"] + answer["completion_tokens"])
            self.cache.put(request, answer)
            return self._value(answer)
        raise AssertionError("unreachable")

    def _wait(self, failed: "Failed", backoff: float, stop: threading.Event) -> None:
        wait = backoff if failed.after_s is None else failed.after_s
        if wait > self.options.longest_wait_s:
            raise DistillError(f"the endpoint {self.options.base_url} asks to wait {wait:.0f} s: come back later")
        with self._lock:
            self.retried += 1
        log.warning("the endpoint %s %s; asked again in %.1f s", self.options.base_url, failed, wait)
        if failed.after_s is not None:
            self.rate.pause(wait)
        self.rate.pause_here(wait, stop)

    def _once(self, request: dict[str, Any], most: tuple[int, int]) -> dict[str, Any]:
        """The answer as it is cached. Raises `Failed`."""
        openai = self._openai
        try:
            with self._create(request) as response:
                body = self._body(response)
            return self._read(body, request, most)
        except openai.APITimeoutError as error:
            raise Failed(f"did not answer within {self.options.timeout_s:g} s", True) from error
        except openai.APIConnectionError as error:
            raise Failed(f"cannot be reached: {self._line(error.__cause__ or error)}", True) from error
        except openai.APIStatusError as error:
            code = error.status_code
            again = code in (408, 429) or code >= 500
            after = _retry_after(error.response.headers) if again else None
            raise Failed(f"answers {code}: {self._line(error)}", again, after) from error
        except openai.APIResponseValidationError as error:
            raise Failed(f"gives what cannot be read: {self._line(error)}", True) from error

    def _body(self, response: Any) -> bytes:
        """What the server sends, up to the largest size."""
        body = bytearray()
        try:
            for part in response.iter_bytes():
                body += part
                if len(body) > self.options.largest_answer:
                    raise Failed(f"sends more than {self.options.largest_answer} bytes", False)
        except Failed:
            raise
        except Exception as error:  # of the HTTP library, which is another one by openai's version
            late = "Timeout" in type(error).__name__
            words = f"did not answer within {self.options.timeout_s:g} s" if late else "cannot be reached"
            raise Failed(f"{words}: {self._line(error)}", True) from error
        return bytes(body)

    def _line(self, error: BaseException) -> str:
        """One short line without the key, of which servers like to repeat parts."""
        return _line(error, self._key)


def served(options: EndpointOptions) -> tuple[str, ...]:
    """Names of the models that a server lists, asked once and kept nowhere; none where it keeps no list.

    Raises:
      DistillError: nobody answers within `timeout_s`, the key is refused, or the server is not ready.
    """
    key, where = _key(options.key_variable), f"the endpoint {options.base_url}"
    openai = _openai()
    try:
        with openai.OpenAI(
            api_key=key or "none", base_url=options.base_url, timeout=options.timeout_s, max_retries=0
        ) as client:
            return tuple(str(model.id) for model in client.models.list().data)
    except openai.APITimeoutError as error:
        raise DistillError(f"{where} did not answer within {options.timeout_s:g} s") from error
    except openai.APIConnectionError as error:
        raise DistillError(f"{where} cannot be reached: {_line(error.__cause__ or error, key)}") from error
    except openai.APIStatusError as error:
        if error.status_code in (401, 403, 502, 503, 504):
            raise DistillError(f"{where} answers {error.status_code}: {_line(error, key)}") from error
        return ()  # somebody is there, who keeps no list
    except (openai.OpenAIError, AttributeError, TypeError, ValueError):  # what it lists cannot be read
        return ()


class EndpointTeacher:
    """The endpoint as a teacher of the loop: it answers the prompts of a batch with text."""

    kind = Text

    def __init__(self, endpoint: Endpoint, prompts: Callable[[Batch], Sequence[Prompt]], name: str) -> None:
        """`prompts` makes the prompts of a batch's rows; `name` says how, for the fingerprint."""
        if not name:
            raise DistillError("a teacher behind an endpoint needs a name for how its prompts are made")
        self.endpoint, self.prompts, self.name = endpoint, prompts, name

    def label(self, batch: Batch) -> Text:
        """One text a row; raises what `Endpoint.complete` raises."""
        return Text(tuple(answer.text for answer in self.endpoint.complete(self.prompts(batch))))

    def fingerprint(self) -> str:
        """Of the endpoint and the way its prompts are made."""
        return hashlib.sha256(canonical([self.name, self.endpoint.fingerprint()]).encode()).hexdigest()


def sampled_log_probs(
    completions: Sequence[Completion], token_id: Callable[[str], int | None]
) -> tuple[SampledLogProbs, Tensor]:
    """The answers' tokens as a signal `[B, T]`, padded with token 0, and the mask `[B, T]` of the real ones.

    `token_id` gives a token text's id in the student's vocabulary, or None. Raises `DistillError` where the endpoint
    gave no log-probabilities, or a token that the student does not have: the tokenizers differ, and only texts can
    be used.
    """
    rows: list[list[tuple[int, float]]] = []
    for completion in completions:
        if completion.tokens is None:
            raise DistillError("the endpoint gave no log-probabilities: set logprobs, or use its texts alone")
        rows.append([(_known_id(text, token_id), log_prob) for text, log_prob in completion.tokens])
    length = max((len(row) for row in rows), default=0)
    tokens, log_probs = torch.zeros(len(rows), length, dtype=torch.int64), torch.zeros(len(rows), length)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor([token for token, _ in row], dtype=torch.int64)
        log_probs[i, : len(row)] = torch.tensor([min(value, 0.0) for _, value in row])
        mask[i, : len(row)] = True
    return SampledLogProbs(tokens, log_probs), mask


class Failed(Exception):
    """One attempt brought nothing; `again` says whether another may, `after_s` when the server wants it."""

    def __init__(
        self, words: str, again: bool, after_s: float | None = None, billed: tuple[int, int] | None = None
    ) -> None:
        """`billed`: prompt and completion tokens that the server counted all the same."""
        super().__init__(words)
        self.again, self.after_s, self.billed = again, after_s, billed


def _line(error: BaseException, key: str | None) -> str:
    text = first_line(error)
    return (text.replace(key, "***") if key else text)[:200]


def _openai() -> Any:
    try:
        import openai
    except ImportError as error:
        raise DistillError("a teacher behind an endpoint needs the lm extra: pip install 'barkour[lm]'") from error
    return openai


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise DistillError(f"the endpoint's API key is missing: set the environment variable {variable}")
    return key


def _request(options: EndpointOptions, prompt: Prompt, sample: int) -> dict[str, Any]:
    """What is asked, and the key of the cache."""
    if isinstance(prompt, str):
        system = [{"role": "system", "content": options.system}] if options.system else []
        messages = [*system, {"role": "user", "content": prompt}]
    else:
        messages = [dict(message) for message in prompt]
    if not messages or any(not isinstance(m.get("content"), str) or "role" not in m for m in messages):
        raise DistillError("a prompt must be text or messages with role and content")
    try:
        canonical(messages).encode()
        "".join(message["content"] for message in messages).encode()
    except (TypeError, ValueError) as error:  # half of a surrogate pair is no text; what else is in it must be JSON
        raise DistillError(f"a prompt cannot be sent: {first_line(error)}") from error
    parameters = options.parameters() | ({} if options.seed is None else {"seed": options.seed + sample})
    about = {"endpoint": options.identity or options.base_url, "model": options.model, "sample": sample}
    return about | {"messages": messages, "parameters": parameters}


def opened(body: bytes, most: tuple[int, int]) -> tuple[Any, list[Any], list[int]]:
    """A body's JSON, the prompt and completion tokens that it says were used, and these with `most` where it does not.

    Raises:
      Failed: no JSON.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Failed("answers with malformed JSON", True) from error
    usage = data.get("usage") if isinstance(data, dict) else None
    used: dict[str, Any] = usage if isinstance(usage, dict) else {}
    counts: list[Any] = [used.get(name) for name in ("prompt_tokens", "completion_tokens")]
    return data, counts, [n if possible(n) else bound for n, bound in zip(counts, most, strict=True)]


def _read(body: bytes, request: dict[str, Any], most: tuple[int, int]) -> dict[str, Any]:
    """The answer of a response's body. Raises `Failed` where there is none in it."""
    data, counts, known = opened(body, most)
    try:
        choice = data["choices"][0]
        message = choice["message"]
        text, reason = _text(message.get("content")), str(choice.get("finish_reason") or "")
        if message.get("refusal"):
            reason = "refusal"
        if not text and not reason and counts == [None, None]:
            raise TypeError("no text")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        billed = None if counts == [None, None] else (known[0], known[1])
        raise Failed("gives an answer without choices or text", True, billed=billed) from error
    return {
        "text": text,
        "finish_reason": reason,
        "tokens": _tokens(choice) if request["parameters"].get("logprobs") else None,
        "prompt_tokens": known[0],
        "completion_tokens": known[1],
        "model": str(data.get("model") or ""),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _text(content: Any) -> str:
    """A message's content: text, parts of it, or nothing, as where the tokens went into hidden thoughts."""
    if content is None:
        return ""
    if isinstance(content, list):
        return "".join(_text(part["text"]) for part in content if part.get("type", "text") == "text")
    if not isinstance(content, str):
        raise TypeError("no text")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise TypeError("half of a surrogate pair is no text") from error
    return content


def _tokens(choice: dict[str, Any]) -> list[list[Any]] | None:
    try:
        tokens = [[str(item["token"]), float(item["logprob"])] for item in choice["logprobs"]["content"]]
    except (KeyError, TypeError, ValueError):
        return None
    return tokens if all(isfinite(value) for _, value in tokens) else None


def _completion(answer: Mapping[str, Any]) -> Completion:
    tokens = answer["tokens"]
    pairs = None if tokens is None else tuple((text, value) for text, value in tokens)
    return Completion(
        answer["text"], answer["finish_reason"], pairs, answer["prompt_tokens"], answer["completion_tokens"]
    )


def _known_id(text: str, token_id: Callable[[str], int | None]) -> int:
    found = token_id(text)
    if found is None:
        raise DistillError(f"the teacher's token {text!r} is not in the student's vocabulary: use its texts alone")
    return found


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server wants to be left alone, from Retry-After as a number or a date; None if it says nothing."""
    text = headers.get("retry-after")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if isfinite(seconds) else None
