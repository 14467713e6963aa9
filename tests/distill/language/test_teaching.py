"""Teachers that tell their likeliest tokens: a server that scores what others wrote, and answers kept on disk."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import barkour
from distill.core.errors import DistillError
from distill.core.journal import Journal
from distill.language import distil as command
from distill.language import teaching
from distill.language.endpoint.client import EndpointOptions
from distill.language.endpoint.scoring import Scorer, ScoringTeacher
from distill.language.models import causal
from distill.language.options import LanguageOptions
from distill.language.student import projected_top_k, top_k
from distill.methods.method import MethodOptions, find
from sim.errors import InputError

pytest.importorskip("openai")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few held-out rows, no pictures."""
    monkeypatch.setattr(command, "MEASURED", 4)
    monkeypatch.setattr(Journal, "plot", lambda journal, title: None)


def options(home: Path, out: Path, **more) -> LanguageOptions:
    given = {
        "teacher": str(home / "teacher"), "student": str(home / "config"), "data": (home / "chats.jsonl",), "out": out,
        "steps": 6, "rounds": 2, "length": 32, "learning_rate": 1e-2, "warmup": 0,
    }  # fmt: skip
    writes = "new_tokens" in find(more.get("method", "kd")).uses(MethodOptions())
    return LanguageOptions(**{**given, **({"new_tokens": 4} if writes else {}), **more})


class Server:
    """A real model behind the two forms in which servers tell what it says of a text; misbehaves by `fault`."""

    def __init__(self, folder: Path, form: str = "vllm", fault: str = "") -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.form, self.fault, self.asked = form, fault, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if fault == "closed":
                    return self.send_error(401)
                outer.asked.append((self.path, {}))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"object": "list", "data": [{"id": "m", "object": "model"}]}')

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, body))
                data = json.dumps(outer.answer(body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @torch.no_grad()
    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        ids, k = body["prompt"], min(body["prompt_logprobs"], 3 if self.fault == "limit" else 10**6)
        said = self.model(torch.tensor([ids])).logits[0, :, : len(self.tokenizer)].log_softmax(-1)
        places: list[Any] = [None]
        for at, own in enumerate(ids[1:]):
            best = said[at].topk(k)
            told = dict(zip(best.indices.tolist(), best.values.tolist(), strict=True))
            told |= {own: said[at, own].item()}  # vLLM tells the text's own token always, beside the k likeliest
            places.append(told)
        choice: dict[str, Any] = {"text": "", "finish_reason": "length", "index": 0}
        if self.fault == "silent":
            pass
        elif self.form == "vllm":
            shift = 1 if self.fault == "tokenizer" else 0
            choice["prompt_logprobs"] = [
                p and {
                    str(i): {"logprob": v, "rank": 1, "decoded_token": self.tokenizer.decode([i + shift])}
                    for i, v in p.items()
                }
                for p in places
            ]  # fmt: skip
        else:
            named = [p and {f"token_id:{i}": v for i, v in p.items()} for p in places]
            own = [None, *(p[i] for p, i in zip(places[1:], ids[1:], strict=True))]
            choice["logprobs"] = {
                "tokens": [*(f"token_id:{i}" for i in ids), "token_id:7"], "token_logprobs": [*own, -1.0],
                "top_logprobs": [*named, {"token_id:7": -1.0}],
            }  # fmt: skip
        return {"choices": [choice], "usage": {"prompt_tokens": len(ids), "completion_tokens": 1}}

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def serve(home):
    started: list[Server] = []

    def start(form: str = "vllm", fault: str = "") -> Server:
        started.append(Server(home / "teacher", form, fault))
        return started[-1]

    yield start
    for server in started:
        server.close()


def teacher_behind(server: Server, folder: Path, k: int, **more) -> ScoringTeacher:
    about = EndpointOptions("m", server.url, None, retries=0, **more)
    return ScoringTeacher(Scorer(about, folder, k), lambda token: server.tokenizer.decode([token]))


@pytest.mark.parametrize("form", ["vllm", "echo"])
def test_a_server_says_of_texts_what_its_model_says(form, serve, tmp_path):
    server, k = serve(form), 5
    size = len(server.tokenizer)
    tokens = torch.randint(0, size, (3, 13), generator=torch.Generator().manual_seed(0))
    mask = torch.rand(3, 12, generator=torch.Generator().manual_seed(1)) < 0.6
    positions = torch.tensor([[*range(12)], [*range(5), *range(7)], [*range(12)]])
    mask[1, 4] = mask[2] = False  # the first of an example is not learned; a row without anything
    batch = {"tokens": tokens, "mask": mask, "positions": positions}
    teacher = teacher_behind(server, tmp_path, k)
    found = teacher.label(batch)
    with torch.no_grad():
        local = causal(size)(server.model, {"tokens": tokens, "positions": positions}).log_softmax(-1)
    told = local.gather(-1, found.indices)
    torch.testing.assert_close(found.log_probs[mask], told[mask], atol=2e-5, rtol=0)
    own = tokens[:, 1:, None]
    assert (found.indices == own).any(-1)[mask].all(), "the student's own token is always among them"
    likeliest = local.topk(k).indices
    asked = mask & (likeliest == own).any(-1)
    assert torch.equal(found.indices[asked].sort(-1).values, likeliest[asked].sort(-1).values)
    paths = [path for path, _ in server.asked]
    assert set(paths) == {"/v1/completions"} and len(paths) == 3, "two examples of one row apart, the empty row never"
    teacher_behind(server, tmp_path, k).label(batch)
    assert len(server.asked) == 3, "answers are remembered"


@pytest.mark.parametrize("method", ["kd", "gkd"])
def test_learning_from_a_server_is_learning_from_its_model(method, home, serve, tmp_path):
    """Told of all tokens, the loss is the one of all logits; texts that the student writes are scored as well."""
    server = serve()
    more = {"method": method, "steps": 4, "batch": 4, "held_out": 0.1}
    more |= {"beta": 0.5} if method == "gkd" else {}
    server_only = {"teacher": "m", "teacher_url": server.url, "teacher_top_k": len(server.tokenizer)}
    found = command.distil(options(home, tmp_path / "served", **more, **server_only, tokenizer=str(home / "teacher")))
    own = command.distil(options(home, tmp_path / "own", **more))
    assert found.perplexity is not None and own.perplexity is not None
    assert found.perplexity["end"] == pytest.approx(own.perplexity["end"], rel=1e-3)
    assert found.perplexity["end"] < found.perplexity["start"] and "teacher" not in found.parameters
    ours, theirs = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("served", "own"))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=2e-3, rtol=0)
    assert server.asked[0][0] == "/v1/models", "before anything else"
    bodies = [body for _, body in server.asked[1:]]
    assert {body["model"] for body in bodies} == {"m"} and all(isinstance(i, int) for b in bodies for i in b["prompt"])


@pytest.mark.parametrize("fault", ["silent", "limit", "tokenizer", "closed", "nobody"])
def test_a_server_that_cannot_serve_is_one_line_and_leaves_nothing(fault, home, serve, tmp_path, capsys):
    server = serve(fault=fault)
    if fault == "nobody":
        server.close()
    words = ["--teacher", "m", "--teacher-url", server.url, "--teacher-top-k", 5, "--steps", 2, "--length", 32]
    words += ["--student", home / "reference", "--data", home / "chats.jsonl", "--out", tmp_path / "a" / "s"]
    capsys.readouterr()  # the server here has loaded its model
    assert barkour.main(["distill", "language", *map(str, words)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and list(tmp_path.iterdir()) == []


def test_a_finished_run_needs_no_server_any_more(home, serve, tmp_path):
    server = serve()
    more = {"teacher": "m", "teacher_url": server.url, "teacher_top_k": 5, "tokenizer": str(home / "teacher")}
    found = command.distil(options(home, tmp_path / "s", **more))
    server.close()
    assert command.distil(options(home, tmp_path / "s", resume=True, **more))["perplexity"] == found["perplexity"]


def test_answers_are_kept_and_serve_where_the_teacher_is_not(home, tmp_path):
    cache = tmp_path / "cache"
    first = command.distil(options(home, tmp_path / "a", teacher_top_k=6, cache=cache))
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    absent = {"teacher": None, "tokenizer": str(home / "teacher"), "cache": cache}
    second = command.distil(options(home, tmp_path / "b", **absent))
    assert files == {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")} and len(files) > 1
    ours, theirs = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("a", "b"))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert first.to_dict()["likeliest"] == second.to_dict()["likeliest"] == 6
    for bad in (
        absent | {"data": (home / "more.jsonl",)},  # rows that it says nothing of
        {"cache": cache, "teacher_top_k": 5}, {"cache": cache, "teacher_top_k": 6, "teacher": str(home / "reference")},
        {"cache": cache}, {"cache": cache, "teacher_top_k": 6, "method": "reverse_kl"},
        {"teacher_top_k": 6, "method": "sinkd"}, {"teacher_top_k": 6, "method": "labels"}, {"teacher_top_k": 10**5},
        {"teacher": None, "cache": tmp_path / "nothing"},
    ):  # fmt: skip
        with pytest.raises(InputError) as error:
            command.distil(options(home, tmp_path / "c", **bad))
        assert len(str(error.value).splitlines()) == 1


def test_likeliest_tokens_made_in_chunks_are_those_of_all_logits(home):
    model = AutoModelForCausalLM.from_pretrained(home / "teacher", dtype=torch.float32).eval()
    size = model.config.vocab_size
    batch = {"tokens": torch.randint(0, size, (3, 9), generator=torch.Generator().manual_seed(0))}
    chunked, whole = projected_top_k(model, size, 4).label(batch), top_k(model, causal(size), 4).label(batch)
    torch.testing.assert_close(chunked.tensors(), whole.tensors(), atol=2e-3, rtol=0)
    with pytest.raises(DistillError):
        teaching.likeliest_of(model, None, causal(size), size, size + 1, 1.0)
