"""What is learned of an example, token by token; rows that hold several keep them apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from distill.language.encoding import CUT, REWRITTEN, TOO_LONG, Encoded, Encoder, packed_rows, padded_rows
from distill.language.examples import Chat, Pair, Text
from distill.language.models import causal, packs
from distill.language.text import END, PAD, bpe

CHATML = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
FORGETFUL = (  # as templates that leave out earlier reasoning: earlier answers are shown otherwise
    "{% for m in messages %}<s>{{ m['role'] }}\n"
    "{{ m['content'] if loop.last or m['role'] != 'assistant' else '...' }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def tokenizer(template: str | None = CHATML, length: int | None = None) -> PreTrainedTokenizerFast:
    found = bpe(["user assistant one two three four " * 20], 300).tokenizer
    found.add_special_tokens(["<s>", "</s>"])
    if length:
        found.enable_truncation(length)
    made = PreTrainedTokenizerFast(tokenizer_object=found, pad_token=PAD, eos_token=END)
    made.chat_template = template
    return made


def chat(*turns: str) -> Chat:
    return Chat(tuple({"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)))


def learned(encoder: Encoder, row: Encoded) -> str:
    return encoder.tokenizer.decode([t for t, yes in zip(row.tokens, row.learned, strict=True) if yes])


def test_every_turn_of_the_assistant_is_learned_and_nothing_else():
    encoder = Encoder(tokenizer(), 200)
    (row,) = encoder.encode(chat("one", "two", "three", "four"))
    assert encoder.tokenizer.decode(row.tokens).count("<s>") == 4
    assert learned(encoder, row) == "two</s>\nfour</s>\n"


def test_turns_that_count_nothing_are_read_and_not_learned():
    encoder = Encoder(tokenizer(), 200)
    example = replace(chat("one", "two", "three", "four"), unlearned=(1,))
    (row,) = encoder.encode(example)
    assert "two" in encoder.tokenizer.decode(row.tokens) and learned(encoder, row) == "four</s>\n"
    assert "two" in encoder.tokenizer.decode(encoder.prompt(example))
    (row,) = Encoder(tokenizer(FORGETFUL), 200).encode(example)
    assert learned(encoder, row) == "four</s>\n"


def test_a_template_that_rewrites_earlier_turns_gives_every_answer_a_row_of_its_own():
    encoder = Encoder(tokenizer(FORGETFUL), 200)
    first, second = encoder.encode(chat("one", "two", "three", "four"))
    assert learned(encoder, first) == "two</s>\n" and learned(encoder, second) == "four</s>\n"
    assert "..." in encoder.tokenizer.decode(second.tokens) and not encoder.dropped


def test_without_a_template_conversations_get_the_projects_own():
    encoder = Encoder(tokenizer(None), 200)
    (row,) = encoder.encode(chat("one", "two", "three", "four"))
    assert learned(encoder, row) == f"two{END}\nfour{END}\n"
    prompt = encoder.prompt(chat("one", "two"))
    assert row.tokens[: len(prompt)] == prompt and encoder.tokenizer.decode(prompt).endswith("assistant:\n")


@pytest.mark.parametrize(
    "template",
    ["{% for", "{{ 1 / 0 }}", "{{ raise_exception('no') }}", "{{ " + "(" * 5000, "{{ messages[0].content + 1 }}",
     "{% for i in range(10**9) %}x{% endfor %}", "{{ messages.pop }}{{ messages[0].content.x.y }}"],
)  # fmt: skip
def test_a_template_that_fails_drops_the_row_and_says_why(template):
    encoder = Encoder(tokenizer(template), 200)
    assert encoder.encode(chat("one", "two")) == [] and encoder.dropped


def test_completions_are_learned_with_their_end_and_are_tokens_as_written_after_the_prompt():
    encoder = Encoder(tokenizer(), 200)
    (row,) = encoder.encode(Pair("one tw", "o three"))
    prompt = encoder.prompt(Pair("one tw", "o three"))
    assert list(row.tokens[: len(prompt)]) == prompt and not any(row.learned[: len(prompt)])
    assert learned(encoder, row) == f"o three{END}"


def test_long_texts_are_cut_into_rows_that_learn_every_token_once():
    encoder = Encoder(tokenizer(), 8)
    text = "one two three four " * 9
    rows = encoder.encode(Text(text))
    ids = [*encoder._ids(text), encoder.end]
    assert [t for row in rows for t, yes in zip(row.tokens, row.learned, strict=True) if yes] == ids[1:]
    assert max(len(row.tokens) for row in rows) == 9 and not encoder.cut


def test_what_does_not_fit_is_cut_or_dropped_and_counted():
    encoder = Encoder(tokenizer(), 12)
    (row,) = encoder.encode(Pair("one", "two " * 40))
    assert len(row.tokens) == 13 and encoder.cut[CUT] == 1
    assert encoder.encode(Pair("one " * 40, "two")) == [] and encoder.dropped[TOO_LONG] == 1
    refusing = Encoder(tokenizer("{{ raise_exception('no') }}"), 12)
    assert refusing.encode(chat("one", "two")) == [] and refusing.dropped[REWRITTEN] == 1


def test_rows_hold_several_examples_without_losing_or_mixing_any():
    rng = np.random.default_rng(0)
    rows = [Encoded(list(rng.integers(5, 99, n)), [False] + [True] * (n - 1)) for n in rng.integers(2, 17, 40)]
    packed, padded = packed_rows(rows, 16, 0), padded_rows(rows, 16, 0)
    assert len(packed["tokens"]) < 0.75 * len(rows) and len(padded["tokens"]) == len(rows)
    found = []
    for tokens, positions in zip(packed["tokens"], packed["positions"], strict=True):
        parts = np.split(tokens, np.flatnonzero(positions == 0)[1:])
        found += [part[part > 0].tolist() for part in parts if part.any()]
    assert sorted(found) == sorted(list(map(int, row.tokens)) for row in rows)
    assert packed["mask"].sum() == padded["mask"].sum() == sum(sum(row.learned) for row in rows)


CONFIGS = {
    "llama": {"num_key_value_heads": 2}, "qwen3": {"num_key_value_heads": 2, "head_dim": 8}, "gpt2": {},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 8}, "mistral": {"num_key_value_heads": 2, "sliding_window": 8},
    "cohere": {"num_key_value_heads": 2}, "granite": {"num_key_value_heads": 2, "logits_scaling": 4.0},
    "phi": {}, "mamba": {"state_size": 4},
}  # fmt: skip


@pytest.mark.parametrize("family", CONFIGS)
def test_packing_changes_no_logit_or_is_not_done(family):
    sizes = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(family, **{**sizes, "intermediate_size": 64, "pad_token_id": 0, **CONFIGS[family]})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    if not packs(model, 99):
        assert family == "mamba", "a state has no positions"
        return
    rng = np.random.default_rng(0)
    rows = [Encoded(list(rng.integers(1, 99, n)), [False] + [True] * (n - 1)) for n in rng.integers(2, 13, 12)]
    sums = []
    for laid in (packed_rows(rows, 24, 0), padded_rows(rows, 24, 0)):
        batch = {name: torch.from_numpy(values) for name, values in laid.items()}
        with torch.no_grad():
            log_probs = causal(99)(model, batch).log_softmax(-1)
        sums.append((log_probs.gather(-1, batch["tokens"][:, 1:, None])[..., 0] * batch["mask"]).sum().item())
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)
