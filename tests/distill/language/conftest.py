"""What the tests of language models share: a small teacher, a config, a reference and data that count on."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from distill.core.journal import Journal
from distill.language.text import END, PAD, bpe

torch.set_num_threads(1)  # models are tiny: threads that wait for each other take longer than the work
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
CONFIG = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than such runs; `test_distil` looks at a picture."""
    monkeypatch.setattr(Journal, "plot", lambda *_: None)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A teacher, a config and chats that count on."""
    folder = tmp_path_factory.mktemp("home")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe([" ".join(WORDS) + " user assistant"], 300).tokenizer, pad_token=PAD, eos_token=END
    )
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = LlamaConfig(**CONFIG, **ids, eos_token_id=tokenizer.eos_token_id)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")
    config.num_hidden_layers = 1
    config.save_pretrained(folder / "config")
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "reference")
    tokenizer.save_pretrained(folder / "reference")
    rows = [{"question": WORDS[i % 9], "answer": WORDS[i % 9 + 1]} for i in range(60)]
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"question": "one", "answer": null}\n')
    more = [{"text": f"{WORDS[i]} {WORDS[i + 1]}"} for i in range(9)]
    (folder / "more.jsonl").write_text("\n".join(map(json.dumps, more)))
    spans = [{"text": row["question"], "entities": {f"kind {i % 3}": [row["question"]]}} for i, row in enumerate(rows)]
    (folder / "spans.jsonl").write_text("\n".join(map(json.dumps, [*spans, {"text": "no entities"}])))
    why = [{**row, "rationale": f"{row['question']} {row['answer']}"} for row in rows]
    thought = [{**row, "answer": json.dumps({"reason": "so", "answer": row["answer"]})} for row in rows]
    (folder / "thought.jsonl").write_text("\n".join(map(json.dumps, [*thought, rows[0]])))
    (folder / "reasons.jsonl").write_text("\n".join(map(json.dumps, [*why, rows[0]])))
    return folder
