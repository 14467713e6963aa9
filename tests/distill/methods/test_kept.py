"""Students of experiments are written into folders that load again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill.core.errors import DistillError
from distill.language.models import Shape, build
from distill.language.text import characters
from distill.language.window import WindowModel
from distill.methods.framework import Trial
from distill.methods.kept import load
from distill.methods.labs.feature_lab import Perceptron
from distill.methods.pgkd.few_labels import BagOfWords

KINDS: dict[str, Callable[[], nn.Module]] = {
    "window": lambda: WindowModel(7, 3, 5, seed=2, prefix=2), "perceptron": lambda: Perceptron(6, 3, 4, 1),
    "bag": lambda: BagOfWords(9, 3, 1),
    "causal": lambda: build(Shape(9, 16, 1, 2)),
    "encoder": lambda: build(Shape(9, 16, 1, 2, kind="encoder", classes=4)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_is_the_same_after_loading(kind, tmp_path):
    module = KINDS[kind]().eval()
    Trial(0, tmp_path, students=tmp_path / "students", doing="an arm").keep(module, "of teacher 3")
    again = load(tmp_path / "students" / "an_arm" / "of_teacher_3")
    assert type(again) is type(module) and not again.training
    ours, theirs = module.state_dict(), again.state_dict()
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_causal_student_has_its_tokenizer_and_second_ones_a_number(tmp_path):
    tokens = characters(["abc"])
    trial = Trial(0, tmp_path, students=tmp_path, doing="kd")
    for seed in (0, 1):
        trial.keep(build(Shape(tokens.size, 16, 1, 2), seed), tokens=tokens)
    assert AutoTokenizer.from_pretrained(tmp_path / "kd")("cab", add_special_tokens=False)["input_ids"] == [5, 3, 4]
    first, second = (AutoModelForCausalLM.from_pretrained(path) for path in (tmp_path / "kd", tmp_path / "kd" / "2"))
    assert not torch.equal(first.lm_head.weight, second.lm_head.weight)


def test_nothing_is_written_unless_it_is_asked_for(tmp_path):
    Trial(0, tmp_path).keep(BagOfWords(9, 3, 1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["nothing", "weights", "kind"])
def test_a_damaged_folder_is_one_sentence(damage, tmp_path):
    Trial(0, tmp_path, students=tmp_path, doing="a").keep(BagOfWords(9, 3, 1))
    folder: Path = tmp_path / "a"
    if damage == "nothing":
        folder = tmp_path / "b"
    elif damage == "weights":
        (folder / "model.safetensors").write_bytes(b"no")
    else:
        (folder / "config.json").write_text('{"kind": "os.system", "settings": {}}')
    with pytest.raises(DistillError) as error:
        load(folder)
    assert len(str(error.value).splitlines()) == 1


def test_a_module_that_could_not_be_loaded_again_is_refused(tmp_path):
    with pytest.raises(DistillError, match="Linear"):
        Trial(0, tmp_path, students=tmp_path).keep(nn.Linear(2, 2))
