"""Options that a method has no use for are refused, those that it has are taken: every one against every method."""

from pathlib import Path
from typing import Any

import pytest

from distill.language import classify, distil
from distill.language.options import ClassifierOptions, LanguageOptions
from distill.methods.method import CLASSIFIERS, METHODS, PARTICULAR, MethodOptions, find
from sim.errors import InputError
from sim.options import flag

VALUES: dict[str, Any] = {
    "alpha": 0.3, "temperature": 1.5, "beta": 0.3, "on_policy": 0.3, "smoothing": 0.3, "weight": 0.3, "keep": 0.3,
    "top_k": 7, "negatives": 7, "generations": 7, "new_tokens": 7, "no_pack": True, "weights": (1.0,),
    "candidates": ("a",), "reference": "a", "pretrained": "a", "general": (Path("a"),), "writer": "a", "texts": 7,
}  # fmt: skip
KINDS = [(LanguageOptions, distil, METHODS), (ClassifierOptions, classify, CLASSIFIERS)]


def test_every_option_is_of_some_method_and_none_is_of_all():
    assert set(VALUES) == set(PARTICULAR)
    for kind, _, names in KINDS:
        used = [find(name, names).uses(MethodOptions()) for name in names]
        there = set(PARTICULAR) & set(kind.__dataclass_fields__)
        assert there <= frozenset.union(*used) and not there & frozenset.intersection(*used)


@pytest.mark.parametrize(("kind", "command", "name"), [(k, c, name) for k, c, names in KINDS for name in names])
def test_an_option_is_used_or_refused(kind, command, name, tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}")
    about = {"method": name, "student": "nowhere", "data": (tmp_path / "rows.jsonl",), "out": tmp_path / "new" / "out"}
    method = find(name, (*METHODS, *CLASSIFIERS))
    used = method.uses(MethodOptions())
    for option in set(PARTICULAR) & set(kind.__dataclass_fields__):
        if option in used:
            method.refuse_unused(kind(**about, **{option: VALUES[option]}), MethodOptions())
            continue
        with pytest.raises(InputError) as error:
            command.distil(kind(**about, **{option: VALUES[option]}))
        said = str(error.value)
        assert name in said and (flag(option) in said or option in said) and len(said.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_what_a_method_uses_follows_from_its_settings():
    gkd = find("gkd")
    assert "new_tokens" in gkd.uses(MethodOptions()) and "no_pack" not in gkd.uses(MethodOptions())
    assert "new_tokens" not in gkd.uses(MethodOptions(on_policy=0.0))
