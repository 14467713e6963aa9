"""Runs that are killed at random moments, again and again, end as one that never was.

    python -m benchmarks.kills language --kills 50
    python -m benchmarks.kills recipe --kills 50

SIGKILL comes after a random share of an undisturbed run's time, so that it strikes every part of it alike; the same
command then goes on. The moments are drawn by `--seed`. After each kill no child may be left, and what had been kept
must still be there; in the end the result must be the undisturbed run's to the last bit.

- `language`: two small models are made on the spot and one is distilled into the other by `barkour distill language`,
  with dropout, a checkpoint after every step and answers that the student writes.
- `recipe`: a recipe with a small budget and two seeds side by side, whose arms are kept one by one.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.errors import InputError

STEPS = 24
RECIPE = "ddk"
ORPHANS = 20.0
"""Children of a process that was killed end within so many seconds."""


def home(folder: Path) -> None:
    """A teacher, a student with dropout, and questions with answers."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast

    from distill.language.text import END, PAD, byte_level

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level().tokenizer, pad_token=PAD, eos_token=END)
    for name, width, dropout in (("teacher", 32, 0.0), ("student", 16, 0.1)):
        torch.manual_seed(width)
        special: Any = tokenizer
        config = GPT2Config(
            vocab_size=len(tokenizer), n_positions=64, n_embd=width, n_layer=2, n_head=2, resid_pdrop=dropout,
            embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=None, eos_token_id=special.eos_token_id,
            pad_token_id=special.pad_token_id,
        )  # fmt: skip
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rows = [{"prompt": f"{i} plus one is ", "completion": str(i + 1)} for i in range(60)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def language(where: Path, out: Path) -> list[str]:
    """The command, as a user gives it again and again."""
    words = ["distill", "language", "--method", "gkd", "--resume"]
    words += ["--teacher", where / "teacher", "--student", where / "student", "--data", where / "rows.jsonl"]
    words += ["--out", out, "--steps", STEPS, "--rounds", 4, "--batch", 4, "--length", 40, "--new-tokens", 6]
    return [*map(str, words), "--checkpoint-minutes", "0"]


def student(out: Path) -> str:
    """SHA-256 of the weights."""
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


def stage(out: Path) -> tuple[int, str]:
    """How far a run had come, as a number that never falls and in words."""
    if (out / "summary.json").is_file():
        return STEPS + 1, "folder written"
    for name in ("checkpoint", "checkpoint.old"):
        state = out / "run" / name / "state.json"
        if state.is_file():
            position = json.loads(state.read_text())["position"]
            return position["round"], f"round {position['round']}"
    return -1, "before the first checkpoint"


def recipe(where: Path, out: Path) -> list[str]:
    """The command, as a user gives it again and again."""
    return ["recipe", "run", RECIPE, "--out", str(out), "--budget", "0.02", "--seeds", "2"]


def arms(out: Path) -> dict[str, Any]:
    """What each seed's finished arms measured."""
    files = sorted(out.glob("*/seed_*/arms.json"))
    return {f"{file.parent.name} {arm}": one["measures"] for file in files
            for arm, one in json.loads(file.read_text()).items()}  # fmt: skip


def measured(out: Path) -> str:
    """All measures; the seconds that they took are no result."""
    return json.dumps(arms(out), sort_keys=True)


def finished_arms(out: Path) -> tuple[int, str]:
    """How far a recipe had come."""
    count = len(arms(out))
    return count, f"{count} arms"


@dataclass(frozen=True)
class Kind:
    """A kind of run."""

    words: Callable[[Path, Path], list[str]]
    """Its command, by the folder of what it reads and its own."""
    result: Callable[[Path], str]
    """What its end must be equal in."""
    stage: Callable[[Path], tuple[int, str]]
    """How far it had come: a number that never falls, and words."""
    home: Callable[[Path], None] = lambda where: None
    """Puts there what it reads."""


KINDS = {
    "language": Kind(language, student, stage, home),
    "recipe": Kind(recipe, measured, finished_arms),
}


def begin(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """The command in a session of its own, so that its children are known."""
    command = [sys.executable, "-m", "barkour", *words, "--json"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def finished(words: Sequence[str]) -> None:
    """Runs a command to its end. Raises `InputError` where it is no good one."""
    with tempfile.TemporaryFile("w+") as said:
        status = subprocess.call(
            [sys.executable, "-m", "barkour", *words, "--json"], stdout=subprocess.DEVNULL, stderr=said
        )
        said.seek(0)
        if status:
            raise InputError(f"status {status}: {(said.read().strip() or 'nothing').splitlines()[-1]}")


def left(session: int) -> list[int]:
    """Processes of a session that still run."""
    found: list[int] = []
    for each in Path("/proc").glob("[0-9]*/stat"):
        try:
            values = each.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(values[3]) == session and values[0] != "Z":
            found.append(int(each.parent.name))
    return found


def run(kind: Kind, kills: int, seed: int) -> dict[str, Any]:
    """Kills so many times over as many runs as that takes.

    Returns:
      `kills`, `runs` that were finished, how many of them were `equal` to the undisturbed one, `orphans` (kills after
      which children went on), `fell` (kills that took what had been kept before), and `struck`: how far runs had come
      -> kills.
    """
    rng, struck = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        where = Path(place)
        kind.home(where)
        began = time.monotonic()
        finished(kind.words(where, where / "whole"))
        lasts, wanted = time.monotonic() - began, kind.result(where / "whole")
        runs = equal = done = orphans = fell = 0
        while done < kills:
            out, each, best = where / f"run_{runs}", 0, -1
            while done < kills and each < 10:
                process = begin(kind.words(where, out))
                try:
                    process.wait(rng.uniform(0.2, 1.05) * lasts)
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                until = time.monotonic() + ORPHANS
                while (alive := left(process.pid)) and time.monotonic() < until:
                    time.sleep(0.1)
                for one in alive:
                    os.kill(one, signal.SIGKILL)
                far, words = kind.stage(out)
                done, each, orphans, fell = done + 1, each + 1, orphans + bool(alive), fell + (far < best)
                best = max(best, far)
                struck[words] += 1
            finished(kind.words(where, out))
            runs, equal = runs + 1, equal + (kind.result(out) == wanted)
            print(f"{done} kills, {runs} runs, {equal} equal, {orphans} orphans, {fell} fell", file=sys.stderr)
    return {
        "kills": done, "runs": runs, "equal": equal, "orphans": orphans, "fell": fell, "struck": dict(struck),
        "seconds_undisturbed": lasts,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 where a run ended otherwise, 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=KINDS, nargs="?", default="language")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        if options.kills < 1:
            raise InputError("there must be one kill at least")
        found = run(KINDS[options.kind], options.kills, options.seed)
    except InputError as error:
        print(f"kills: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=2))
    return 0 if found["equal"] == found["runs"] and not found["orphans"] and not found["fell"] else 1


if __name__ == "__main__":
    sys.exit(main())
