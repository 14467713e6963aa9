"""A teacher behind a real HTTP server that misbehaves on request: retries, limits, cache, budget, one clear line."""

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.core.errors import DistillError
from distill.core.signals import Text
from distill.core.teachers import DiskCache, Teacher
from distill.language.endpoint.client import Completion, Endpoint, EndpointOptions, EndpointTeacher, sampled_log_probs
from distill.language.endpoint.limits import Prices

pytest.importorskip("openai")
torch.set_num_threads(1)

KEY = "sk-very-secret-1234567890"


class Server:
    """Answers each request by the next word of its script, `ok` when that is at its end."""

    def __init__(self, *script: str) -> None:
        self.script, self.requests, self.keys = list(script), [], []
        self.times: list[float] = []
        self.running = self.most = 0
        self.delay_s = 0.0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.times.append(time.monotonic())
                    outer.requests.append(body)
                    outer.keys.append(self.headers["Authorization"])
                    outer.running += 1
                    outer.most = max(outer.most, outer.running)
                    word = outer.script.pop(0) if outer.script else "ok"
                time.sleep(outer.delay_s)
                with outer.lock:
                    outer.running -= 1
                outer.answer(self, word, body)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # clients that gave up

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler: Any, word: str, body: dict[str, Any]) -> None:
        status, headers, data = 200, {}, json.dumps(self.completion(body)).encode()
        if word == "slow":
            time.sleep(0.6)
        elif word.startswith("429"):
            status, data = 429, b'{"error": {"message": "slow down"}}'
            if " " in word:
                headers["Retry-After"] = word.split(" ", 1)[1]
        elif word.isdigit():
            status, data = int(word), json.dumps({"error": {"message": f"status {word} for {KEY}"}}).encode()
        elif word == "malformed":
            data = b'{"choices": [{"mess'
        elif word == "deep":
            data = b"[" * 100_000
        elif word == "empty":
            data = b'{"id": "x", "choices": []}'
        elif word == "null":
            data = b"null"
        elif word == "no text":
            data = b'{"choices": [{"message": {"content": null}}]}'
        elif word == "uncounted":
            data = json.dumps(self.completion(body) | {"usage": None}).encode()
        handler.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data) + (100 if word == "cut off" else 0)))
        handler.end_headers()
        handler.wfile.write(data)
        if word == "cut off":
            handler.close_connection = True

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        text = body["messages"][-1]["content"].upper()
        content = [{"token": c, "logprob": -0.5} for c in text] if body.get("logprobs") else None
        return {
            "id": "x",
            "model": "tiny",
            "choices": [
                {
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                    "logprobs": content and {"content": content},
                }
            ],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }


@pytest.fixture
def serve(monkeypatch) -> Iterator[Any]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    servers: list[Server] = []

    def start(*script: str) -> Server:
        servers.append(Server(*script))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def endpoint(server: Server, folder: Path, **changes: Any) -> Endpoint:
    values = {"model": "tiny", "base_url": server.url, "backoff_s": 0.01, "timeout_s": 5.0, "max_tokens": 20}
    return Endpoint(EndpointOptions(**(values | changes)), folder)


def texts(answers: list[Completion]) -> list[str]:
    return [answer.text for answer in answers]


def test_answers_come_in_the_order_of_the_prompts_and_are_counted(serve, tmp_path):
    server = serve()
    teacher = endpoint(server, tmp_path, system="be brief", prices=Prices(1.0, 2.0), seed=3, top_p=0.9)
    prompts = ["sit", [{"role": "user", "content": "jump"}], "stay"]
    answers = teacher.complete(prompts)
    assert texts(answers) == ["SIT", "JUMP", "STAY"] and answers[0].finish_reason == "stop"
    usage = teacher.usage
    assert (usage.requests, usage.prompt_tokens, usage.completion_tokens) == (3, 30, 15)
    assert usage.money == pytest.approx(60e-6)
    sent = next(r for r in server.requests if r["messages"][-1]["content"] == "sit")
    assert sent["messages"][0] == {"role": "system", "content": "be brief"} and len(sent["messages"]) == 2
    assert {k: sent[k] for k in ("model", "temperature", "top_p", "max_tokens", "seed")} == {
        "model": "tiny",
        "temperature": 1.0,
        "top_p": 0.9,
        "max_tokens": 20,
        "seed": 3,
    }
    assert set(server.keys) == {f"Bearer {KEY}"} and "logprobs" not in sent


@pytest.mark.parametrize(
    "word", ["slow", "408", "429", "429 0", "500", "503", "malformed", "empty", "null", "no text", "cut off"]
)
def test_what_may_pass_is_tried_again(serve, tmp_path, word):
    server = serve(word, word)
    teacher = endpoint(server, tmp_path, timeout_s=0.3)
    assert texts(teacher.complete(["sit"])) == ["SIT"]
    assert len(server.requests) == 3 and teacher.retried == 2 and teacher.usage.requests == 1


@pytest.mark.parametrize(
    "word, words",
    [
        ("slow", "did not answer within 0.2 s"),
        ("429", "answers 429: .*slow down"),
        ("500", "answers 500: .*status 500"),
        ("malformed", "answers with malformed JSON"),
        ("empty", "gives an answer without choices or text"),
        ("null", "gives an answer without choices or text"),
        ("cut off", "cannot be reached: .+"),
    ],
)
def test_after_the_retries_there_is_one_clear_line(serve, tmp_path, word, words, caplog):
    server = serve(*[word] * 3)
    teacher = endpoint(server, tmp_path, timeout_s=0.2, retries=2)
    with caplog.at_level(logging.DEBUG), pytest.raises(DistillError, match=words) as caught:
        teacher.complete(["sit"])
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"the endpoint {server.url} ") and "(tried 3 times)" in message
    assert f"0 of 1 answers are kept in {tmp_path}" in message and len(server.requests) == 3
    assert KEY not in message and KEY not in caplog.text


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_other_refusals_are_not_tried_again(serve, tmp_path, status):
    server = serve(str(status))
    with pytest.raises(DistillError, match=rf"answers {status}: .*status {status}") as caught:
        endpoint(server, tmp_path).complete(["sit"])
    assert len(server.requests) == 1 and KEY not in str(caught.value) and "***" in str(caught.value)


def test_a_closed_port_is_one_line_too(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    options = EndpointOptions("tiny", f"http://127.0.0.1:{port}/v1", retries=1, backoff_s=0.01)
    with pytest.raises(DistillError, match=r"cannot be reached: .*efused.* \(tried 2 times\); 0 of 1 answers"):
        Endpoint(options, tmp_path).complete(["sit"])


def test_the_wait_that_a_server_asks_for_is_kept_by_all_threads(serve, tmp_path):
    server = serve("429 0.8", "slow")  # the second is answered after 0.6 s, and then its thread has to wait too
    teacher = endpoint(server, tmp_path, concurrency=2)
    assert texts(teacher.complete(["sit", "stay", "lie"])) == ["SIT", "STAY", "LIE"]
    assert len(server.times) == 4 and min(server.times[2:]) - server.times[0] >= 0.8
    dated = serve(f"429 {formatdate(time.time() + 2, usegmt=True)}")
    endpoint(dated, tmp_path).complete(["sit"])
    assert 0.9 <= dated.times[1] - dated.times[0] <= 2.5
    patient = serve("429 3600")
    with pytest.raises(DistillError, match="asks to wait 3600 s: come back later; 0 of 1"):
        endpoint(patient, tmp_path).complete(["sit"])


def test_waits_double(serve, tmp_path):
    server = serve("500", "500", "500")
    endpoint(server, tmp_path, backoff_s=0.1).complete(["sit"])
    waits = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    for wait, least in zip(waits, (0.1, 0.2, 0.4), strict=True):
        assert least <= wait <= 1.25 * least + 0.15


def test_no_more_requests_are_under_way_than_allowed(serve, tmp_path):
    server = serve()
    server.delay_s = 0.03
    endpoint(server, tmp_path, concurrency=3).complete([f"sit {i}" for i in range(12)])
    assert 2 <= server.most <= 3


def test_a_rate_limit_is_kept_on_this_side(serve, tmp_path):
    server = serve()
    teacher = endpoint(server, tmp_path, requests_per_minute=2)
    slept: list[float] = []
    now = [0.0]

    def sleep(seconds: float, stop: threading.Event) -> bool:
        slept.append(seconds)
        now[0] += seconds
        return stop.is_set()

    teacher.rate.clock, teacher.rate.sleep = (lambda: now[0]), sleep
    teacher.complete([f"sit {i}" for i in range(5)])
    assert len(server.requests) == 5 and now[0] >= 120 and slept


# Memory on disk


def test_nothing_is_asked_twice_and_every_difference_is_asked(serve, tmp_path):
    server = serve()
    for _ in range(2):
        teacher = endpoint(server, tmp_path)
        assert texts(teacher.complete(["sit", "stay", "sit"])) == ["SIT", "STAY", "SIT"]
    assert len(server.requests) == 2 and teacher.cached == 2 and teacher.usage.requests == 2
    for changes in ({"model": "other"}, {"temperature": 0.5}, {"max_tokens": 21}, {"seed": 1}, {"system": "x"}):
        endpoint(server, tmp_path, **changes).complete(["sit"])
    teacher.complete(["sit"], sample=1)
    endpoint(server, tmp_path, extra={"top_k": 5}).complete(["sit"])
    assert len(server.requests) == 9 and server.requests[-1]["top_k"] == 5
    elsewhere = serve()
    endpoint(elsewhere, tmp_path).complete(["sit"])
    assert len(elsewhere.requests) == 1  # another server is another teacher
    for _ in range(2):
        endpoint(elsewhere, tmp_path, identity="mine").complete(["sit"])
        endpoint(server, tmp_path, identity="mine").complete(["sit"])
    assert len(elsewhere.requests) == 2 and len(server.requests) == 9  # unless one says that it is the same


def test_samples_of_one_prompt_are_different_draws_and_come_again(serve, tmp_path):
    server = serve()
    teacher = endpoint(server, tmp_path, seed=100)
    assert teacher.generate("sit", n=3, temperature=0.7, seed=5) == ["SIT"] * 3
    assert sorted(r["seed"] for r in server.requests) == [5, 6, 7]
    assert {r["temperature"] for r in server.requests} == {0.7}
    teacher.generate("sit", n=4, temperature=0.7, seed=5)
    assert len(server.requests) == 4


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    changed = {
        "cut off": data[: len(data) // 2],
        "empty": b"",
        "another text": data.replace(b"SIT", b"SAT"),
        "no object": b"[1, 2]",
        "no utf-8": b"\xff\xfe" + data,
    }
    path.write_bytes(changed[how])


@pytest.mark.parametrize("how", ["cut off", "empty", "another text", "no object", "no utf-8"])
def test_damaged_answers_are_found_and_asked_again(serve, tmp_path, how, caplog):
    server = serve()
    endpoint(server, tmp_path).complete(["sit"])
    (path,) = (tmp_path / "answers").rglob("*.json")
    damage(path, how)
    assert (
        texts(endpoint(server, tmp_path).complete(["sit"])) == ["SIT"] and "damaged and asked for again" in caplog.text
    )
    assert texts(endpoint(server, tmp_path).complete(["sit"])) == ["SIT"] and len(server.requests) == 2


def test_exchanged_answers_are_found(serve, tmp_path):
    server = serve()
    endpoint(server, tmp_path).complete(["sit", "stay"])
    a, b = (tmp_path / "answers").rglob("*.json")
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    assert texts(endpoint(server, tmp_path).complete(["sit", "stay"])) == ["SIT", "STAY"] and len(server.requests) == 4


def test_what_was_answered_before_a_failure_is_kept(serve, tmp_path):
    server = serve("ok", "ok", "400")
    prompts = [f"sit {i}" for i in range(6)]
    with pytest.raises(DistillError, match=r"answers 400: .*; 2 of 6 answers are kept in"):
        endpoint(server, tmp_path, concurrency=1).complete(prompts)
    assert len(server.requests) == 3  # nothing was sent after the refusal
    assert texts(endpoint(server, tmp_path).complete(prompts)) == [p.upper() for p in prompts]
    assert len(server.requests) == 3 + 4


CRASH = """
import sys
from distill.language.endpoint.client import Endpoint, EndpointOptions
teacher = Endpoint(EndpointOptions("tiny", sys.argv[1], concurrency=1, max_tokens=20), sys.argv[2])
teacher.complete([f"sit {i}" for i in range(50)])
"""


def test_a_killed_run_goes_on_where_it_was(serve, tmp_path):
    server = serve()
    server.delay_s = 0.03
    run = subprocess.Popen([sys.executable, "-c", CRASH, server.url, str(tmp_path)])
    until = time.monotonic() + 180
    while len(server.requests) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    run.kill()
    run.wait()
    kept = len(list((tmp_path / "answers").rglob("*.json")))
    before = len(server.requests)
    assert 1 <= kept <= before < 50
    server.delay_s = 0.0
    teacher = endpoint(server, tmp_path, temperature=1.0)
    assert texts(teacher.complete([f"sit {i}" for i in range(50)])) == [f"SIT {i}" for i in range(50)]
    assert len(server.requests) - before == 50 - kept


# Budget


def test_the_budget_stops_before_it_is_exceeded_and_counts_earlier_runs(serve, tmp_path):
    server, prices = serve(), Prices(1.0, 2.0)  # an answer costs 10 + 2 * 5 = 20 millionths, at most about 80 + 40
    budget = 250e-6
    prompts = [f"sit {i:02}" for i in range(40)]
    with pytest.raises(
        DistillError, match=r"the budget of 0.00025 would be exceeded: .* is spent, and the next"
    ) as caught:
        endpoint(server, tmp_path, prices=prices, budget=budget).complete(prompts)
    spent = endpoint(server, tmp_path, prices=prices).usage
    assert spent.money is not None and 100e-6 <= spent.money <= budget and spent.requests == len(server.requests)
    assert f"{spent.requests} of 40 answers are kept" in str(caught.value)
    asked = len(server.requests)
    with pytest.raises(DistillError, match="would be exceeded"):
        endpoint(server, tmp_path, prices=prices, budget=budget).complete(prompts)
    assert len(server.requests) == asked  # answers from the disk are free, new ones are not
    assert texts(endpoint(server, tmp_path, prices=prices, budget=1.0).complete(prompts))[-1] == "SIT 39"
    assert len(server.requests) == 40


def test_a_budget_of_tokens_needs_no_prices(serve, tmp_path):
    server = serve()
    with pytest.raises(DistillError, match="the budget of 200 tokens would be exceeded: .* are used, and the next"):
        endpoint(server, tmp_path, token_budget=200).complete([f"sit {i}" for i in range(40)])
    usage = endpoint(server, tmp_path).usage
    assert 0 < usage.prompt_tokens + usage.completion_tokens <= 200 and usage.money is None


def test_answers_without_a_count_are_taken_to_have_cost_the_most(serve, tmp_path):
    server = serve("uncounted")
    teacher = endpoint(server, tmp_path)
    teacher.complete(["sit"])
    assert teacher.usage.completion_tokens == 20 and teacher.usage.prompt_tokens >= 3


# The key


def test_the_key_is_neither_stored_nor_shown(serve, tmp_path, caplog):
    server = serve("500", "401")
    teacher = endpoint(server, tmp_path)
    with caplog.at_level(logging.DEBUG), pytest.raises(DistillError) as caught:
        teacher.complete(["sit"])
    teacher.complete(["sit"])
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    shown = caplog.text + str(caught.value) + repr(teacher.options)
    assert stored and KEY.encode() not in stored and KEY not in shown


def test_a_missing_key_is_named_and_servers_without_keys_need_none(serve, tmp_path, monkeypatch):
    server = serve()
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(DistillError, match="key is missing: set the environment variable OPENAI_API_KEY"):
        endpoint(server, tmp_path)
    assert texts(endpoint(server, tmp_path, key_variable=None).complete(["sit"])) == ["SIT"]


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(DistillError, match=r"needs the lm extra: pip install 'barkour\[lm\]'"):
        Endpoint(EndpointOptions("tiny"), tmp_path)


# As a teacher


def test_it_is_a_teacher_of_the_loop_and_can_be_cached_like_any(serve, tmp_path):
    server = serve()

    def prompts(batch):
        return [f"say {i}" for i in batch["ids"].tolist()]

    teacher = EndpointTeacher(endpoint(server, tmp_path), prompts, "say the id")
    assert isinstance(teacher, Teacher) and teacher.kind is Text
    cached = DiskCache(teacher, tmp_path / "signals")
    for _ in range(2):
        signal = cached.label({"ids": torch.arange(3)})
        assert isinstance(signal, Text) and signal.texts == ("SAY 0", "SAY 1", "SAY 2")
    assert len(server.requests) == 3 and (cached.hits, cached.misses) == (1, 1)
    other = EndpointTeacher(endpoint(server, tmp_path, temperature=0.0), prompts, "say the id")
    named = EndpointTeacher(endpoint(server, tmp_path), prompts, "another way")
    again = EndpointTeacher(endpoint(server, tmp_path), prompts, "say the id")
    assert len({t.fingerprint() for t in (teacher, other, named)}) == 3 and again.fingerprint() == teacher.fingerprint()
    with pytest.raises(DistillError, match="needs a name for how its prompts are made"):
        EndpointTeacher(teacher.endpoint, prompts, "")


def test_log_probabilities_become_a_signal_with_a_mask(serve, tmp_path):
    server = serve()
    teacher = endpoint(server, tmp_path, logprobs=True)
    ids = {c: i for i, c in enumerate("ABSIT")}
    for _ in range(2):  # the second time from the disk
        signal, mask = sampled_log_probs(teacher.complete(["sit", "a"]), ids.get)
        assert signal.tokens.tolist() == [[2, 3, 4], [0, 0, 0]] and mask.tolist() == [[True] * 3, [True, False, False]]
        assert (signal.log_probs[mask] == -0.5).all()
    assert server.requests[0]["logprobs"] is True and len(server.requests) == 2
    with pytest.raises(DistillError, match="the teacher's token 'Q' is not in the student's vocabulary"):
        sampled_log_probs(teacher.complete(["q"]), ids.get)
    with pytest.raises(DistillError, match="gave no log-probabilities: set logprobs"):
        sampled_log_probs(endpoint(server, tmp_path).complete(["a"]), ids.get)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"base_url": "localhost:8000"}, "base_url must be an http or https address, got 'localhost:8000'"),
        ({"base_url": "http://me:secret@host/v1"}, "base_url must not hold a user or password"),
        ({"model": ""}, "needs the name of a model"),
        ({"retries": -1}, "retries must be at least 0, got -1"),
        ({"concurrency": 0}, "concurrency must be at least 1, got 0"),
        ({"timeout_s": 0}, "timeout_s must be above 0, got 0"),
        ({"temperature": float("nan")}, "parameters must be JSON"),
        ({"extra": {"x": object()}}, "parameters must be JSON"),
    ],
)
def test_impossible_options_are_refused(changes, words):
    with pytest.raises(DistillError, match=words) as caught:
        EndpointOptions(**({"model": "tiny"} | changes))
    assert "secret" not in str(caught.value)


def test_a_budget_in_money_needs_prices_and_prompts_need_text(serve, tmp_path):
    server = serve()
    with pytest.raises(DistillError, match="needs the prices of prompt and completion tokens"):
        endpoint(server, tmp_path, budget=1.0)
    with pytest.raises(DistillError, match="a prompt must be text or messages with role and content"):
        endpoint(server, tmp_path).complete([[{"role": "user"}]])


def test_importing_it_does_not_load_the_client():
    code = (
        "import sys, distill.language.endpoint.client; "
        "sys.exit('openai' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- answers that are no texts ----------------------------------------------------------------------------------------

UNFINISHED = {
    "length": {"content": "The pump is", "finish_reason": "length"},
    "empty": {"content": "", "finish_reason": "stop"},
    "content_filter": {"content": None, "finish_reason": "content_filter"},
    "refusal": {"content": None, "refusal": "I cannot.", "finish_reason": "stop"},
    "MAX_TOKENS": {"content": "The pump is", "finish_reason": "MAX_TOKENS"},
    "model_length": {"content": "The pump is", "finish_reason": "model_length"},
    "abort": {"content": "The", "finish_reason": "abort"},
    "SAFETY": {"content": "I would rather", "finish_reason": "SAFETY"},
    "tool_calls": {"content": "I look it up.", "tool_calls": [{"id": "1"}], "finish_reason": "tool_calls"},
}


@pytest.mark.parametrize("reason", UNFINISHED)
def test_unfinished_answers_are_paid_once_remembered_and_an_option_decides(serve, tmp_path, monkeypatch, reason):
    said = dict(UNFINISHED[reason])
    server, complete = serve(), Server.completion

    def odd(self: Server, body: dict[str, Any]) -> dict[str, Any]:
        found = complete(self, body)
        if body["messages"][-1]["content"] == "odd":
            message = {name: value for name, value in said.items() if name != "finish_reason"}
            found["choices"] = [{"message": message, "finish_reason": said["finish_reason"]}]
        return found

    monkeypatch.setattr(Server, "completion", odd)
    for _ in range(2):  # the second time from disk
        asked = endpoint(server, tmp_path)
        with pytest.raises(DistillError, match=f"1 {reason}"):
            asked.complete(["sit", "odd", "stay"])
        assert len(server.requests) == 3 and asked.usage.completion_tokens == 15
    kept = endpoint(server, tmp_path, unfinished="keep").complete(["sit", "odd"])
    assert texts(kept) == ["SIT", said["content"] or ""] and kept[1].unfinished == reason
    assert len(server.requests) == 3


def test_what_is_billed_without_an_answer_counts_against_the_budget(serve, tmp_path, monkeypatch):
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    monkeypatch.setattr(Server, "completion", lambda self, body: {"usage": usage})
    server = serve()
    asked = endpoint(server, tmp_path, token_budget=130.0)
    with pytest.raises(DistillError, match="budget"):
        asked.complete(["sit"])
    used = asked.usage
    assert used.prompt_tokens + used.completion_tokens == 15 * len(server.requests) <= 130


def test_large_and_deep_answers_and_parts_of_one(serve, tmp_path, monkeypatch):
    server = serve()
    with pytest.raises(DistillError, match="more than 20 bytes"):
        endpoint(serve(), tmp_path / "b", largest_answer=20).complete(["sit"])
    parts = [{"type": "text", "text": "si"}, {"type": "text", "text": "t"}]
    choices = {"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}
    monkeypatch.setattr(Server, "completion", lambda self, body: choices)
    assert texts(endpoint(serve(), tmp_path / "c").complete(["sit"])) == ["sit"]
    monkeypatch.setattr(Server, "completion", lambda self, body: {"choices": [{"message": {"content": "\ud83d"}}]})
    with pytest.raises(DistillError, match="without choices or text"):
        endpoint(serve(), tmp_path / "e", retries=0).complete(["sit"])
    server = serve("deep")
    with pytest.raises(DistillError, match="malformed"):
        endpoint(server, tmp_path / "d", retries=0).complete(["sit"])
    with pytest.raises(DistillError, match="cannot be sent"):
        endpoint(server, tmp_path / "a").complete(["sur\ud83drogate"])
