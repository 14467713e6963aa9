"""The memory that the docs plan for 1, 8 and 64 devices is that of models built without weights."""

from pathlib import Path

import torch

from distill.core.sharding import blocks
from distill.language.models import Shape, build, parameters, sharding

VOCABULARY = 128_256
SMALL = Shape(VOCABULARY, 2048, 16, 32, 8192, key_value_heads=8)
MIDDLE = Shape(VOCABULARY, 4096, 32, 32, 14_336, key_value_heads=8, tied=False)
LARGE = Shape(VOCABULARY, 8192, 80, 64, 28_672, key_value_heads=8, tied=False)
DOCS = Path(__file__).parents[3] / "docs" / "distil_language.md"


def teacher(devices: int) -> float:
    """GB that a device holds of a large teacher in bf16 whose blocks are spread, one of them as a whole."""
    with torch.device("meta"):
        model = build(LARGE)
    every = [sum(p.numel() for p in block.parameters()) for block in blocks(model)]
    return 2 * (parameters(model) - sum(every) + sum(every) / devices + max(every)) / 1e9


def test_the_plans_of_the_docs_are_those_of_the_models():
    small, middle = (sharding(shape, 1, 80.0)["parameters"] / 1e9 for shape in (SMALL, MIDDLE))
    found = {
        1: 4 * middle + 16 * small,  # teacher and student in float32, gradients and both moments
        8: 16 * middle / 8 + 4 * middle,  # the student's part, and the whole copy that is measured and that writes
        64: 16 * middle / 64 + 4 * middle + teacher(64),
    }
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith(tuple(f"| {n} |" for n in found))]
    assert [line.split("|")[-2].strip() for line in lines] == [f"{value:.0f} GB" for value in found.values()]
    assert all(value < 72 for value in found.values()), "with room for activations on devices of 80 GB"
    held = teacher(8)
    assert f"takes {held:.0f} GB of each of 8 devices, beside this student {found[8] + held:.0f} GB" in DOCS.read_text()
