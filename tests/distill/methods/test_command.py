"""What `barkour recipe` gives back, and prints."""

import json
from importlib import import_module

import pytest
from rich.console import Console

from barkour import COMMANDS
from distill.methods import command
from distill.methods.catalogue import find
from distill.methods.method import CLASSIFIERS, METHODS
from distill.methods.options import ListOptions, RecipeRunOptions, ShowOptions, SweepOptions
from sim.errors import InputError


def printed(result) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    result.show(console)
    return console.export_text()


def test_the_list_and_one_recipe_are_shown():
    found = command.listed(ListOptions())
    text = printed(found)
    assert all(entry["name"] in text for entry in found["recipes"])
    assert {"name", "title", "source", "algorithm", "skill", "vertical"} <= set(found["recipes"][0])
    for entry in found["recipes"]:
        kinds = [call.split()[2] for call in entry["own_models"] if call.startswith("barkour ")]
        of_method = [k for k, names in (("language", METHODS), ("classifier", CLASSIFIERS)) if entry["name"] in names]
        assert kinds == of_method + find(entry["name"]).command.split()[:1]
        assert all(kind in COMMANDS["distill"].commands for kind in kinds)
        called = [call.rpartition(".") for call in entry["own_models"] if not call.startswith("barkour ")]
        assert all(callable(getattr(import_module(module), name)) for module, _, name in called)
        assert kinds or called, f"{entry['name']} runs on no models of one's own"
    about = command.show(ShowOptions("ddk"))
    assert about["own_models"][0] in " ".join(printed(about).split())
    assert about["real_scale"] == {"teacher": "Qwen/Qwen1.5-14B", "student": "Qwen/Qwen1.5-1.8B"}
    assert "arXiv 2407.16154" in printed(about)
    json.dumps([found.to_dict(), about.to_dict()])


@pytest.mark.slow
def test_a_run_and_a_sweep_print_verdicts(tmp_path):
    options = {"out": tmp_path, "budget": 0.01, "seeds": 2, "workers": 1}
    result = command.run(RecipeRunOptions(name="pgkd", **options))
    text = printed(result)
    assert f"verdict: {result['verdict']}" in text and "permuted report" in text
    merged = command.sweep(SweepOptions(names=("pgkd",), **options))
    assert merged["verdicts"] == {"pgkd": result["verdict"]} and result["verdict"] in printed(merged)


@pytest.mark.slow
def test_a_plan_needs_no_weights():
    found = command.run(RecipeRunOptions(name="ddk", plan=True))
    assert found["models"]["teacher"]["trains"] and "accelerate launch" in printed(found)
    assert command.sweep(SweepOptions(names=("ddk",), plan=True))["plans"] == [found]


def test_a_name_that_no_recipe_has_is_one_sentence():
    for call in (lambda: command.show(ShowOptions("nothing")), lambda: command.run(RecipeRunOptions(name="nothing"))):
        with pytest.raises(InputError, match="there is no recipe 'nothing'"):
            call()


@pytest.mark.parametrize("options", [{"budget": 0.0}, {"budget": 1.1}, {"seeds": -1}, {"workers": 10**9}])
def test_numbers_have_ranges(options):
    with pytest.raises(InputError, match=f"--{next(iter(options))}"):
        RecipeRunOptions(name="ddk", **options)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        command.run(RecipeRunOptions(name="pgkd", out=tmp_path / "file", budget=0.01))
