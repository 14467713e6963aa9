"""A model's chat template is a program from outside: it is first run by a child that may take only so much.

Templates are written in Jinja, whose sandbox keeps them from files and from single endless ranges, not from nested ones
or from texts of gigabytes. The child renders three short conversations with each; what else is wrong with a template
is told where it is used. Run as a program this module is the child.
"""

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from distill.core.errors import DistillError
from distill.core.reading import read_json
from sim.limited import answer, limit

WALL, PROCESSOR = 20, 3
"""Seconds that the child may take, and of processor time. Templates of published models take 0.2 s of it with the
imports."""
MEMORY = 1 << 30
"""Bytes of address space."""
LARGEST = 1 << 20
"""Characters that it may make of a conversation of a few words."""
SEVERAL = "additional_chat_templates"
"""Folder of a model's named templates."""
KEEPERS = ("tokenizer_config.json", "processor_config.json", "chat_template.json")
"""Files that hold templates under `chat_template`."""
_SAID = [("system", "Be brief."), ("user", "How far?"), ("assistant", "Two miles."), ("user", "And back?")]
CHATS = [
    [{"role": role, "content": text} for role, text in _SAID[first:last]] for first, last in ((1, 2), (1, 3), (0, 4))
]


def check_templates(folder: Path) -> None:
    """Raises `DistillError` where a chat template in a model's folder takes too much time or memory."""
    for file, template in _templates(folder):
        if problem := _tried(template):
            raise DistillError(f"{file}: its chat template {problem}")


def _templates(folder: Path) -> Iterator[tuple[Path, str]]:
    for file in (folder / "chat_template.jinja", *sorted((folder / SEVERAL).glob("*.jinja"))):
        if file.is_file():
            yield file, file.read_text(encoding="utf-8", errors="replace")
    for name in KEEPERS:
        file = folder / name
        said = read_json(file) if file.is_file() else None
        kept = said.get("chat_template") if isinstance(said, dict) else None
        for template in _in(kept):
            yield file, template


def _in(kept: Any) -> list[str]:
    """One template, several by their names, or a list of both."""
    if isinstance(kept, str):
        return [kept]
    values = kept.values() if isinstance(kept, dict) else kept if isinstance(kept, list) else ()
    return [
        template for value in values for template in _in(value.get("template") if isinstance(value, dict) else value)
    ]


@cache
def _tried(template: str) -> str:
    """What it takes too much of, empty where nothing."""
    said = answer(__file__, template.encode("utf-8", "replace"), WALL + 2)
    if not isinstance(said, dict) or not isinstance(said.get("problem"), str):
        return f"did not end within {PROCESSOR} s of processor time and {WALL} s in all"
    return said["problem"]


# --- the child --------------------------------------------------------------------------------------------------------


def _problem(template: str) -> str:
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    limit(WALL, PROCESSOR, MEMORY)
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value)
    environment.globals["strftime_now"] = lambda form: "2026"
    template = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)  # a mark that transformers alone knows
    for chat in CHATS:
        for asks in (True, False):
            try:
                text = environment.from_string(template).render(
                    messages=chat,
                    tools=None,
                    documents=None,
                    add_generation_prompt=asks,
                    bos_token="<s>",
                    eos_token="</s>",
                )
            except (MemoryError, OverflowError):
                return f"takes more than {MEMORY >> 20} MiB of memory"
            except Exception:  # a template may raise what it likes: it is told where it is used
                continue
            if len(text) > LARGEST:
                return f"makes {len(text)} characters of a conversation of a few words"
    return ""


if __name__ == "__main__":
    print(json.dumps({"problem": _problem(sys.stdin.buffer.read().decode("utf-8", "replace"))}))
