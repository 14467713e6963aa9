"""What `barkour recipe` gives back, and prints."""

import json

import pytest
from rich.console import Console

from distill.methods.command import recipe
from distill.methods.tables import show
from sim.errors import InputError


def printed(result) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(console, result)
    return console.export_text()


def test_the_list_and_one_recipe_are_shown():
    found = recipe("list")
    text = printed(found)
    assert all(entry["name"] in text for entry in found["recipes"])
    assert {"name", "title", "source", "algorithm", "skill", "vertical"} <= set(found["recipes"][0])
    about = recipe("show", ("ddk",))
    assert about["real_scale"] == {"teacher": "Qwen/Qwen1.5-14B", "student": "Qwen/Qwen1.5-1.8B"}
    assert "arXiv 2407.16154" in printed(about)
    json.dumps([found, about])


@pytest.mark.slow
def test_a_run_and_a_sweep_print_verdicts(tmp_path):
    options = {"out": tmp_path, "budget": 0.01, "seeds": 2, "workers": 1}
    result = recipe("run", ("pgkd",), **options)
    text = printed(result)
    assert f"verdict: {result['verdict']}" in text and "random report" in text
    merged = recipe("sweep", ("pgkd",), **options)
    assert merged["verdicts"] == {"pgkd": result["verdict"]} and result["verdict"] in printed(merged)


@pytest.mark.slow
def test_a_plan_needs_no_weights():
    found = recipe("run", ("ddk",), only_plan=True)
    assert found["models"]["teacher"]["trains"] and "accelerate launch" in printed(found)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", ()), "takes one name"),
        (("run", ("ddk", "first")), "takes one name"),
        (("list", ("ddk",)), "takes no name"),
        (("show", ("nothing",)), "there is no recipe 'nothing'"),
        (("dance", ()), "not 'dance'"),
    ],
)
def test_bad_usage_is_one_sentence(arguments, words):
    with pytest.raises(InputError, match=words):
        recipe(*arguments)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        recipe("run", ("pgkd",), out=tmp_path / "file", budget=0.01)
