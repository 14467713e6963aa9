"""The model card of a distilled student: where it comes from, how it was made, what it measures, what is missing."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from shlex import join
from typing import Any

import yaml

from distill.language.evaluation import table
from distill.language.options import OF_THE_CALL, LanguageOptions
from distill.methods.method import Method


def command(options: LanguageOptions) -> str:
    """The command that makes the student."""
    words = ["barkour", "distill", "language"]
    for item in fields(options):
        value = getattr(options, item.name)
        if item.name in OF_THE_CALL or value == item.default:
            continue
        name = item.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}")
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return join(words)


def write_card(folder: Path, options: LanguageOptions, method: Method, found: Mapping[str, Any]) -> None:
    """Writes `README.md`; `found` is what `distil` returns."""
    bases = sorted(
        {name for name in (options.teacher, *found.get("teachers", {}).values(), found["student"])
         if name and "(" not in name}
    )  # fmt: skip
    head = {
        "library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["distillation", method.name],
        "license": "other", "license_name": "to-be-filled", "base_model": bases,
    }  # fmt: skip
    data, count = found["data"], found["parameters"]
    figures = [("perplexity on held-out data, at the start", found["perplexity"]["start"])]
    figures += [("perplexity on held-out data, at the end", found["perplexity"]["end"])]
    if "teacher" in found["perplexity"]:
        figures += [("the teacher's perplexity there", found["perplexity"]["teacher"])]
        figures += [("share of held-out tokens at which teacher and student agree", found["agreement"])]
    several = ", ".join(f"{model} ({name})" for name, model in found.get("teachers", {}).items())
    taught = several or options.teacher or "none"
    if "teacher" in count:
        taught += f", {count['teacher']:,} parameters"
    elif options.teacher_url or options.cache:
        taught += f", by its {found['likeliest']} likeliest tokens"
    lost = [f"- {what}: {n} ({why})" for what in ("dropped", "cut") for why, n in data[what].items()]
    settings = ", ".join(f"{name} {value}" for name, value in found["settings"].items())
    lines = [
        "---", yaml.safe_dump(head, sort_keys=False).strip(), "---", "", f"# {folder.name}", "",
        f"{method.title} ({method.source}){': ' + settings if settings else ''}.", "",
        f"- teacher: {taught}",
        f"- student: {found['student']}, {count['student']:,} parameters",
        f"- data: {data['examples']} examples, {data['learned_tokens']} tokens that are learned in a pass; "
        f"{data['held_out_rows']} rows held out",
        *lost,
        f"- training: {found['steps']} steps of {found['batch']} rows of {found['length']} tokens; the parameters are "
        f"those of round {found['best_round'] + 1} of {found['rounds']}, the best on held-out data",
        "", "| measure | value |", "|---|---|", *(f"| {name} | {value:.4g} |" for name, value in figures), "",
        "On the rows of each domain that were held out:", "", *table(found["evaluation"]), "",
        "![training](curve.png)", "", "## Licence", "",
        "To be filled: the licences of the teacher, of the student's own weights and of the data decide it.", "",
        "## Made with", "", "```", command(options), "```", "", "| file | SHA-256 |", "|---|---|",
        *(f"| {name} | `{digest}` |" for name, digest in data["files"].items()), "",
    ]  # fmt: skip
    (folder / "README.md").write_text("\n".join(lines))
