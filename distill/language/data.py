"""Text to distil on: generated sources by name, which need no network, and real text by path."""

import json
import re
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from distill.core.errors import DistillError
from distill.core.reading import files_below, unique
from distill.language.examples import NOT_TEXT, Pair, Text, check_size, fault_of, read_examples, table
from sim.results import printable

Rng = np.random.Generator


def boilerplate(rng: Rng) -> str:
    """Templates with tiny variation: easy for every model."""
    lines = (
        "all rights reserved. see section {} of the terms.",
        "this page was last updated on day {}. thank you for reading.",
        "click here to accept the cookies. offer number {} ends soon.",
        "the information is provided as is, without warranty {}.",
    )
    return lines[rng.integers(len(lines))].format(rng.integers(10))


def brackets(rng: Rng) -> str:
    """Nested brackets of two kinds, all closed."""
    text, open_ = "", []
    for _ in range(int(rng.integers(8, 24))):
        if open_ and (rng.random() < 0.45 or len(open_) > 5):
            text += open_.pop()
        else:
            kind = "()" if rng.random() < 0.5 else "[]"
            text, open_ = text + kind[0], [*open_, kind[1]]
    return text + "".join(reversed(open_))


def copying(rng: Rng) -> str:
    """A word and the word again: the second half is certain to who looks back."""
    word = "".join(rng.choice(list("abcdefgh"), int(rng.integers(4, 9))))
    return f"{word}>{word}"


def chains(rng: Rng) -> str:
    """Repeated addition modulo 10 with a step that the line names."""
    value, step = int(rng.integers(10)), int(rng.integers(1, 10))
    text = f"+{step}:"
    for _ in range(8):
        text, value = f"{text}{value}", (value + step) % 10
    return text


def rules(rng: Rng) -> str:
    """Brackets, copies or chains: text with rules that take capacity."""
    return (brackets, copying, chains)[rng.integers(3)](rng)


def arithmetic(rng: Rng) -> str:
    """`a+b=c` with numbers below 100."""
    a, b = rng.integers(100, size=2)
    return f"{a}+{b}={a + b}"


def melody(rng: Rng) -> str:
    """A motif of four notes, again and again a step higher."""
    notes, motif = "abcdefghijkl", rng.integers(0, 6, 4)
    return " ".join("".join(notes[(n + shift) % 12] for n in motif) for shift in range(5))


def noise(rng: Rng) -> str:
    """Letters and digits, each as likely: nothing to learn."""
    return "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz0123456789"), 40))


class _Markov:
    """Sentences of made-up words that follow one another by a fixed random grammar: ordinary prose, in small."""

    def __init__(self) -> None:
        rng = np.random.default_rng(20240)
        syllables = [c + v for c in "bdklmnprst" for v in "aeiou"]
        self.words = ["".join(rng.choice(syllables, int(rng.integers(1, 4)))) for _ in range(120)]
        self.next = rng.dirichlet(np.full(120, 0.03), 120)

    def __call__(self, rng: Rng) -> str:
        """One sentence."""
        word, found = int(rng.integers(120)), []
        for _ in range(int(rng.integers(5, 12))):
            found.append(self.words[word])
            word = int(rng.choice(120, p=self.next[word]))
        return " ".join(found) + "."


prose = _Markov()

GENERATED: Mapping[str, Callable[[Rng], str]] = {
    "boilerplate": boilerplate, "brackets": brackets, "copying": copying, "chains": chains, "rules": rules,
    "arithmetic": arithmetic, "melody": melody, "noise": noise, "prose": prose,
}  # fmt: skip
"""Sources that write one line at a time."""

LIBRARY = (
    "argparse",
    "ast",
    "calendar",
    "csv",
    "datetime",
    "decimal",
    "difflib",
    "enum",
    "fractions",
    "heapq",
    "inspect",
)


def python_source(size: int, seed: int) -> str:
    """About `size` characters of the Python standard library: code that every interpreter brings along."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = [p.read_text(errors="ignore") for p in (folder / f"{name}.py" for name in LIBRARY) if p.is_file()]
    whole = "".join(c for c in "\n".join(found) if c == "\n" or " " <= c <= "~")
    if len(whole) < size:
        raise DistillError(f"the standard library here gives {len(whole)} characters of source, {size} were asked for")
    first = int(np.random.default_rng(seed).integers(len(whole) - size + 1))
    return whole[first : first + size]


def source(name: str, size: int, seed: int) -> str:
    """About `size` characters of a source by name, newline after newline; raises `DistillError` for unknown names."""
    if name == "python":
        return python_source(size, seed)
    if name not in GENERATED:
        raise DistillError(f"there is no source '{name}'; generated are {', '.join(sorted([*GENERATED, 'python']))}")
    rng, lines, length = np.random.default_rng(seed), [], 0
    while length < size:
        lines.append(GENERATED[name](rng))
        length += len(lines[-1]) + 1
    return "\n".join(lines) + "\n"


def sources(names: Mapping[str, int], seed: int, skip: int = 0) -> dict[str, str]:
    """Name -> text of so many characters, each with its own seed; `skip` gives other text of the same sources."""
    if not names:
        raise DistillError("a mixture of sources needs at least one")
    return {name: source(name, size, _seed(seed, i, skip)) for i, (name, size) in enumerate(names.items())}


def _seed(*values: int) -> int:
    return int(np.random.SeedSequence(values).generate_state(1)[0])


# --- real text ------------------------------------------------------------------------------------------------------


@dataclass
class Corpus:
    """What a folder holds."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    """Domain (name of a text file or of its folder) -> documents."""
    pairs: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Split or task -> (question, answer)."""
    labelled: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Split -> (text, class)."""
    tagged: dict[str, list[tuple[list[str], list[str]]]] = field(default_factory=dict)
    """Split -> (tokens, BIO tags) of each sentence."""

    def domains(self) -> dict[str, str]:
        """Everything as plain text by domain: documents, questions with answers, labelled texts."""
        found = {name: "\n".join(documents) for name, documents in self.texts.items()}
        found |= {name: "\n".join(f"{q}\n{a}" for q, a in pairs) for name, pairs in self.pairs.items()}
        found |= {name: "\n".join(text for text, _ in pairs) for name, pairs in self.labelled.items()}
        return found | {name: "\n".join(" ".join(t) for t, _ in found) for name, found in self.tagged.items()}


def read_folder(folder: Path | str) -> Corpus:
    """Reads every file below a folder by its form.

    `.txt` whose lines are a token, a tab and a tag such as `O` or `B-PER` is CoNLL, other `.txt`, `.py` and `.md` are
    text; `.jsonl` has rows of any form of `language.examples`, of which those without content are left out; `.csv` the
    columns `text` and `category`; `.json` of BIG-Bench Hard has `examples` of `input` and `target`. A file's name
    without its ending, with its folder's before it where it lies in one, names the split.

    Raises:
      DistillError: the folder is missing, holds nothing of this kind, or a file is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DistillError(f"the data folder {folder} does not exist")
    corpus = Corpus()
    for path in filter(Path.is_file, files_below(folder, READERS)):
        name = printable("/".join((*path.relative_to(folder).parts[:-1], path.stem)))
        try:
            check_size(path)
            READERS[path.suffix](corpus, name, path)
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, ValueError, RecursionError) as error:
            if isinstance(error, DistillError):
                raise
            raise DistillError(f"{path} cannot be read: {type(error).__name__} {error}") from error
    if not (corpus.texts or corpus.pairs or corpus.labelled or corpus.tagged):
        raise DistillError(f"the data folder {folder} holds no text in a form that is read ({', '.join(READERS)})")
    return corpus


def _text(corpus: Corpus, name: str, path: Path) -> None:
    text = path.read_text(encoding="utf-8-sig")
    lines = [line for line in text[:4000].split("\n")[:50] if line.strip()]
    if path.suffix == ".txt" and lines and all(TAGGED.fullmatch(line) for line in lines[: max(len(lines) - 1, 1)]):
        corpus.tagged[name] = list(_sentences(text))
    else:
        corpus.texts[name] = [text]


def _sentences(text: str) -> Iterator[tuple[list[str], list[str]]]:
    for block in text.strip().split("\n\n"):
        pairs = [line.rstrip("\r").split("\t")[:2] for line in block.split("\n") if line.strip()]
        for pair in pairs:
            if len(pair) < 2:
                raise DistillError(f"the line {pair[0][:40]!r} has no tab between a token and its tag")
        if pairs:
            yield [p[0] for p in pairs], [p[1] for p in pairs]


def _questions(corpus: Corpus, name: str, path: Path) -> None:
    pairs: list[tuple[str, str]] = []
    texts: list[str] = []
    for example in read_examples(path).examples:
        if isinstance(example, Text):
            texts.append(example.text)
        elif isinstance(example, Pair):
            pairs.append((example.prompt, example.completion))
        else:
            turns = [str(turn["content"]) for turn in example.messages]
            last = example.answers[-1]
            if last and turns[last]:
                pairs.append(("\n".join(turns[:last]), turns[last]))
    if pairs:
        corpus.pairs[name] = pairs
    if texts:
        corpus.texts[name] = texts


def _table(corpus: Corpus, name: str, path: Path) -> None:
    rows = list(table(path))
    if rows and not {"text", "category"} <= set(rows[0]):
        raise DistillError(f"{path} needs the columns text and category, it has {', '.join(map(str, rows[0]))}")
    found = [(row["text"], row["category"]) for row in rows if row["text"] and row["category"]]
    if not found:
        raise DistillError(f"{path} has no row with both a text and a category")
    corpus.labelled[name] = found


def _examples(corpus: Corpus, name: str, path: Path) -> None:
    data = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    rows = data.get("examples", []) if isinstance(data, dict) else data
    rows = [e for e in rows if isinstance(e, dict) and {"input", "target"} <= set(e)] if isinstance(rows, list) else []
    pairs = [(e["input"], e["target"]) for e in rows if fault_of(e["input"], e["target"]) != NOT_TEXT]
    if pairs:  # lists of labels lie beside the data and are no text
        corpus.pairs[name] = pairs


TAGGED = re.compile(r"\S+\t(O|[BIESLU]-\S+)(\t.*)?\r?")
"""A line of CoNLL."""
READERS: Mapping[str, Callable[[Corpus, str, Path], None]] = {
    ".txt": _text, ".py": _text, ".md": _text, ".jsonl": _questions, ".csv": _table, ".json": _examples,
}  # fmt: skip
