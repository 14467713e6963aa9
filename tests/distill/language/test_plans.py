"""The memory that the docs plan for 1, 8 and 64 devices is that of models built without weights."""

from pathlib import Path

from distill.language.models import Shape, sharding

VOCABULARY = 128_256
SMALL = Shape(VOCABULARY, 2048, 16, 32, 8192, key_value_heads=8)
MIDDLE = Shape(VOCABULARY, 4096, 32, 32, 14_336, key_value_heads=8, tied=False)
DOCS = Path(__file__).parents[3] / "docs" / "distil_language.md"


def test_the_plans_of_the_docs_are_those_of_the_models():
    small, middle = (sharding(shape, 1, 80.0)["parameters"] / 1e9 for shape in (SMALL, MIDDLE))
    found = {
        1: 4 * middle + 16 * small,  # teacher and student in float32, gradients and both moments
        8: 16 * middle / 8 + 4 * middle,  # the student's part, and the whole copy that is measured and that writes
        64: 16 * middle / 64 + 4 * middle,
    }
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith(tuple(f"| {n} |" for n in found))]
    assert [line.split("|")[-2].strip() for line in lines] == [f"{value:.0f} GB" for value in found.values()]
    assert all(value < 72 for value in found.values()), "with room for activations on devices of 80 GB"
