"""A teacher with other tokens: which pieces are compared, what it is asked, and that a student learns from it."""

import json

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from distill.core.objectives.base import StudentOutput
from distill.core.objectives.likelihood import SpanLikelihood
from distill.language import distil as command
from distill.language.aligned import APART, AlignedEncoder, RecordedSpans, aligned, with_likelihoods
from distill.language.encoding import Encoder, padded_rows
from distill.language.examples import Chat, Pair, Text
from distill.language.models import causal
from distill.language.options import LanguageOptions
from distill.language.student import ModelStudent
from distill.language.text import END, PAD, bpe, byte_level, characters
from sim.errors import InputError

TEXTS = ["one two three", "  two,  three\n\none ", "na\u00efve caf\u00e9 \u4e2d\u6587 \U0001f600!", "a", "three"]
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPLITS = {
    "bytes": lambda: byte_level(), "characters": lambda: characters([*TEXTS, "user assistant:|<>\n"]),
    "few words": lambda: bpe(["one two three " * 9], 300), "many words": lambda: bpe([" ".join(WORDS) * 9], 400),
}  # fmt: skip


def tokenizer(split: str, template: str | None = None) -> PreTrainedTokenizerFast:
    made = PreTrainedTokenizerFast(tokenizer_object=SPLITS[split]().tokenizer, pad_token=PAD, eos_token=END)
    made.chat_template = template
    return made


def model(size: int, seed: int = 0):
    config = LlamaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=96,
    )  # fmt: skip
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("ours", SPLITS)
@pytest.mark.parametrize("theirs", SPLITS)
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_the_same_text_in_both_and_leave_nothing_out(ours, theirs, text):
    first, second = (Encoder(tokenizer(name), 50) for name in (ours, theirs))
    (a, spans), (b, other) = first.split(text), second.split(text)
    found = aligned(spans, other)
    assert found[0][0] == found[0][2] == 0 and found[-1][1] == len(a) - 1 and found[-1][3] == len(b) - 1
    assert all(x[1] + 1 == y[0] and x[3] + 1 == y[2] for x, y in zip(found, found[1:], strict=False))
    for i, k, j, m in found:
        assert first.tokenizer.decode(a[i : k + 1]) == second.tokenizer.decode(b[j : m + 1])
    if ours == theirs and all(ord(c) < 128 for c in text):
        assert [(i, k) for i, k, *_ in found] == [(i, i) for i in range(len(a))]


def scored(teacher, ids: list[int]) -> np.ndarray:
    """Log-probability of each token after the first."""
    with torch.no_grad():
        said = teacher(input_ids=torch.tensor([ids[:-1]])).logits[0].double().log_softmax(-1)
    return said[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()


@pytest.mark.parametrize("theirs", ["bytes", "characters", "few words"])
def test_the_teacher_is_asked_about_the_same_text_behind_its_own_prompt(theirs):
    other = tokenizer(theirs, CHATML)
    encoder = AlignedEncoder(tokenizer("many words"), 60, other)
    teacher = model(len(other))
    examples = [
        Pair("one two", " three four"), Text("one two three four five"),
        Chat(tuple({"role": r, "content": c} for r, c in (
            ("user", "one"), ("assistant", "two three"), ("user", "four"), ("assistant", " five\n")
        ))),
    ]  # fmt: skip
    encoded = [row for example in examples for row in encoder.encode(example)]
    assert len(encoded) == 3 and not encoder.cut
    rows = padded_rows(encoded, 60, 0)
    reader = ModelStudent(teacher, causal(len(other)))
    found, sums = with_likelihoods(rows, encoded, teacher, reader, other.pad_token_id, Console(quiet=True))

    def told(row: int) -> float:
        ends = found["span"][row]
        return float(found["span_log_prob"][row][ends == np.arange(60)].sum())

    prompt, completion = (other(text, add_special_tokens=False)["input_ids"] for text in ("one two", " three four"))
    ids = [*prompt, *completion, other.eos_token_id]
    assert told(0) == pytest.approx(scored(teacher, ids)[len(prompt) - 1 :].sum(), abs=1e-4)
    ids = [*other("one two three four five", add_special_tokens=False)["input_ids"], other.eos_token_id]
    begun = len(other("one", add_special_tokens=False)["input_ids"])  # the student's first token is never learned
    assert told(1) == pytest.approx(scored(teacher, ids)[begun - 1 :].sum(), abs=1e-4)
    expected = 0.0
    for before, said in (
        ("<|user|>one<|end|><|assistant|>", "two three"),
        ("<|user|>one<|end|><|assistant|>two three<|end|><|user|>four<|end|><|assistant|>", "five"),
    ):
        text = f"{before}{said}<|end|>"
        found_ids = other(text, add_special_tokens=False, return_offsets_mapping=True)
        inside = [i for i, (a, b) in enumerate(found_ids["offset_mapping"]) if a >= len(before)]
        closing = next(i for i in inside if found_ids["offset_mapping"][i][0] >= len(before) + len(said))
        expected += scored(teacher, found_ids["input_ids"])[inside[0] - 1 : closing].sum()
    assert told(2) == pytest.approx(expected, abs=1e-4)
    covered = (found["span"] >= 0) & rows["mask"]
    assert covered[:2].sum() == rows["mask"][:2].sum() and sums["tokens"] == (found["span"] >= 0).sum()


def test_with_the_same_tokens_a_student_that_is_its_teacher_has_nothing_to_learn():
    own = tokenizer("many words", CHATML)
    twin = model(len(own))
    encoder = AlignedEncoder(own, 24, own)
    examples = [Text(" ".join(WORDS * 6)), Pair("one", " two three"), Text("na\u00efve \u4e2d\u6587")]
    encoded = [row for example in examples for row in encoder.encode(example)]
    assert len(encoded) > 4, "a long text is several rows"
    rows = padded_rows(encoded, 24, own.pad_token_id)
    reader = ModelStudent(twin, causal(len(own)))
    with_them, _ = with_likelihoods(rows, encoded, twin, reader, own.pad_token_id, Console(quiet=True))
    batch = {name: torch.from_numpy(values) for name, values in with_them.items()}
    cut = [i for i, row in enumerate(encoded) if i and row.tokens[0] == encoded[i - 1].tokens[-1]]
    whole = [i for i in range(len(encoded)) if i not in cut]  # of a row that goes on the teacher sees no beginning
    signal = RecordedSpans().label(batch).index(torch.tensor(whole))
    output = StudentOutput(logits=causal(len(own))(twin, {"tokens": batch["tokens"][whole]}))
    assert SpanLikelihood()(output, signal, batch["mask"][whole]).item() == pytest.approx(0.0, abs=1e-6)
    other = StudentOutput(logits=output.logits + torch.randn_like(output.logits))
    assert SpanLikelihood()(other, signal, batch["mask"][whole]).item() > 0.01


def test_rows_beyond_the_teachers_context_and_texts_without_a_piece_are_counted():
    encoder = AlignedEncoder(tokenizer("many words"), 40, tokenizer("bytes"), most=8)
    (row,) = encoder.encode(Pair("one", " two three four five"))
    assert row.told and all(m <= 8 for passage in row.told for *_, m in passage.pieces)
    (row,) = encoder.encode(Pair("one two three", " four"))
    assert not row.told and encoder.cut == {APART: 1} and any(row.learned)


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """A teacher of characters that counts, one that does not, a student's config and tokenizer of words, and chats."""
    folder = tmp_path_factory.mktemp("apart")
    rows = [{"prompt": WORDS[i % 9], "completion": f" {WORDS[i % 9 + 1]}"} for i in range(90)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    theirs, ours = tokenizer("bytes"), tokenizer("many words")
    teacher = model(len(theirs))
    teacher.save_pretrained(folder / "random")
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=1e-2)
    encoder = Encoder(theirs, 24)
    laid = padded_rows([encoder.pair(Pair(r["prompt"], r["completion"])) for r in rows[:9]], 24, theirs.pad_token_id)
    tokens, mask = torch.from_numpy(laid["tokens"]), torch.from_numpy(laid["mask"])
    for _ in range(60):
        logits = teacher(input_ids=tokens[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits[mask], tokens[:, 1:][mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    teacher.save_pretrained(folder / "teacher")
    for name in ("random", "teacher"):
        theirs.save_pretrained(folder / name)
    ours.save_pretrained(folder / "tokens")
    model(len(ours)).config.save_pretrained(folder / "config")
    return folder


def options(folder, out, **more) -> LanguageOptions:
    given = {
        "teacher": str(folder / "teacher"), "student": str(folder / "config"), "tokenizer": str(folder / "tokens"),
        "data": (folder / "pairs.jsonl",), "out": out, "method": "alm", "steps": 60, "rounds": 2, "length": 16,
        "learning_rate": 1e-2, "warmup": 0,
    }  # fmt: skip
    return LanguageOptions(**{**given, **more})


def test_a_student_learns_to_count_from_a_teacher_of_bytes_alone(apart, tmp_path, no_pictures):
    """Without labels: one that has learned nothing can teach nothing."""
    found = command.distil(options(apart, tmp_path / "a", alpha=1.0))
    assert found["perplexity"]["end"] < 3 < 50 < found["perplexity"]["start"] and found["aligned"]["in_pieces"] == 1.0
    from_none = command.distil(options(apart, tmp_path / "b", alpha=1.0, teacher=str(apart / "random")))
    assert from_none["perplexity"]["end"] > 10 * found["perplexity"]["end"]
    assert "pieces that hold 100%" in (tmp_path / "a" / "README.md").read_text()
    assert "teacher" not in found["perplexity"] and "teacher" not in found["evaluation"]["megabytes"]


def test_plans_dry_runs_and_what_cannot_be(apart, tmp_path, no_pictures):
    found = command.distil(options(apart, tmp_path / "plan", plan=True))
    assert found["seconds_per_step"] > 0 and not (tmp_path / "plan").exists()
    assert command.distil(options(apart, tmp_path / "dry", dry_run=True))["data"]["packed"] is False
    for more, why in (
        ({"student": "prune:layers=1"}, "cut from its teacher"), ({"teacher_top_k": 4}, "whole teacher"),
        ({"method": "kd"}, "different tokenizers"), ({"teacher": None}, "needs --teacher"),
        ({"no_pack": True}, "no-pack"), ({"teacher_url": "http://127.0.0.1:9/v1"}, "127.0.0.1"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=why):
            command.distil(options(apart, tmp_path / "no", **more))
    assert not (tmp_path / "no").exists()
