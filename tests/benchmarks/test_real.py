"""The distillation of a real model: its data, and what it says where the model is not there."""

import json

import pytest

from benchmarks import real
from sim.errors import InputError


def test_the_data_are_english_that_every_python_brings(tmp_path):
    few = real.texts(limit=3, length=16)
    assert {name: len(some) for name, some in few.items()} == {"language": 3, "library": 3}
    assert all(real.LEAST <= len(text) <= 16 * real.MOST for some in few.values() for text in some)
    assert sum(len(text) for some in real.texts().values() for text in some) > 500_000
    paths = real.write_data(tmp_path, 3, 16)
    rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    assert [row["text"] for row in rows] == [text for some in few.values() for text in some]


@pytest.mark.parametrize("words", [["--steps", "0"], ["--length", "1"], ["--only", "language"]])
def test_bad_input_and_missing_models_are_one_line(words, tmp_path, monkeypatch, capsys):
    def nowhere(name: str):
        raise InputError(f"{name} is not installed")

    monkeypatch.setattr(real, "package", nowhere)
    assert real.main([*words, "--out", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_package_is_found_without_importing_it():
    assert (real.package("distill") / "core").is_dir()
    with pytest.raises(InputError):
        real.package("no_such_package_of_models")
