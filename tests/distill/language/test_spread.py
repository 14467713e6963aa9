"""A teacher that two processes keep in parts says what the whole one says, and teaches the same student."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distill.core import sharding
from distill.language.distil import distil
from distill.language.options import LanguageOptions
from tests.distill.language.spread_processes import MIXED
from tests.distill.language.test_families import FAMILIES
from tests.distill.pairs import launched

PARTS = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


@pytest.mark.slow
def test_models_of_every_family_say_in_parts_what_they_say_whole():
    said = launched([Path(__file__).with_name("spread_processes.py")])
    for out in said:
        found = {line.split()[1]: line for line in out.splitlines() if line.startswith("FOUND")}
        assert list(found) == [*FAMILIES, MIXED]
        assert [line for line in found.values() if line.split()[3] != "True"] == []
        assert all(float(line.split()[2]) < 0.75 for line in found.values()), "no process has it all"


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"batch": 8, "teacher_top_k": 3, "cache": Path("labels")},
        {"batch": 5, "micro_batch": 1, "student": "prune:layers=1"},  # one process has a piece more than the other
    ],
)
def test_it_teaches_the_student_that_a_whole_one_teaches(home, tmp_path, no_pictures, more):
    options = {
        "teacher": str(home / "teacher"), "student": str(home / "config"), "data": (home / "chats.jsonl",),
        "method": "kd", "length": 16, "steps": 4, "rounds": 2, "seed": 3, **more,
    }  # fmt: skip
    if "cache" in more:
        options["cache"] = tmp_path / "labels"
    line = [
        part
        for name, value in options.items()
        for part in (f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, tuple) else [str(value)]))
    ]
    launched(["-m", "barkour", "distill", "language", *line, "--out", tmp_path / "two"], **PARTS)
    made = sorted((tmp_path / "labels").rglob("*"))
    one = distil(LanguageOptions(**options, out=tmp_path / "one")).to_dict()
    two = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert two["teacher_spread"] and "teacher_spread" not in one
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    assert max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]) < 1e-6
    for name in ("start", "end", "teacher"):
        assert two["perplexity"][name] == pytest.approx(one["perplexity"][name], rel=1e-5)
    evaluated = [run["evaluation"]["domains"]["chats"]["teacher"] for run in (one, two)]
    assert evaluated[1] == pytest.approx(evaluated[0], rel=1e-5)
    assert sorted((tmp_path / "labels").rglob("*")) == made, "nothing of it had to be asked again"


def test_blocks_are_the_entries_of_outermost_lists():
    inner = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    block = torch.nn.ModuleDict({"experts": inner, "norm": torch.nn.LayerNorm(2)})
    model = torch.nn.ModuleDict(
        {"layers": torch.nn.ModuleList([block, torch.nn.Identity()]), "head": torch.nn.Linear(2, 2)}
    )
    assert list(sharding.blocks(model)) == [block]
