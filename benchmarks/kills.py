"""A distillation that is killed at random moments, again and again, ends with the very bits of one that never was.

    python -m benchmarks.kills --kills 50

Two small models are made on the spot and one is distilled into the other by `barkour distill language`, with dropout, a
checkpoint after every step and answers that the student writes. SIGKILL comes after a random share of an undisturbed
run's time, so that it strikes reading, writing texts, fitting, measuring, checkpoints and the final folder alike. The
moments are drawn by `--seed`.
"""

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sim.errors import InputError

STEPS = 24


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


def begin(where: Path, out: Path) -> subprocess.Popen[str]:
    """The command, as a user starts it again and again."""
    words = [sys.executable, "-m", "barkour", "distill", "language", "--method", "gkd", "--resume"]
    words += ["--teacher", where / "teacher", "--student", where / "student", "--data", where / "rows.jsonl"]
    words += ["--out", out, "--steps", STEPS, "--rounds", 4, "--batch", 4, "--length", 40, "--new-tokens", 6]
    words += ["--checkpoint-minutes", 0, "--json"]
    return subprocess.Popen([*map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> None:
    """Waits for the end. Raises `InputError` where it is no good one."""
    said = process.communicate()[1]
    if process.returncode:
        raise InputError(f"status {process.returncode}: {(said.strip() or 'nothing').splitlines()[-1]}")


def student(out: Path) -> str:
    """SHA-256 of the weights."""
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


def stage(out: Path) -> str:
    """How far a run had come."""
    if (out / "summary.json").is_file():
        return "folder written"
    for name in ("checkpoint", "checkpoint.old"):
        state = out / "run" / name / "state.json"
        if state.is_file():
            return f"round {json.loads(state.read_text())['position']['round']}"
    return "before the first checkpoint"


def run(kills: int, seed: int) -> dict[str, Any]:
    """Kills so many times over as many runs as that takes.

    Returns:
      `kills`, `runs` that were finished, how many of them were `equal` to the undisturbed one, and `struck`: how far
      runs had come -> kills.
    """
    rng, struck = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        where = Path(place)
        home(where)
        began = time.monotonic()
        finished(begin(where, where / "whole"))
        lasts, wanted = time.monotonic() - began, student(where / "whole")
        runs = equal = done = 0
        while done < kills:
            out, each = where / f"run_{runs}", 0
            while done < kills and each < 10:
                process = begin(where, out)
                try:
                    process.wait(rng.uniform(0.2, 1.05) * lasts)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    done, each = done + 1, each + 1
                    process.communicate()
                    struck[stage(out)] += 1
                    continue
                break
            finished(begin(where, out))
            runs, equal = runs + 1, equal + (student(out) == wanted)
            print(f"{done} kills, {runs} runs, {equal} equal", file=sys.stderr)
    return {"kills": done, "runs": runs, "equal": equal, "struck": dict(struck), "seconds_undisturbed": lasts}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 where a run ended otherwise, 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        if options.kills < 1:
            raise InputError("there must be one kill at least")
        found = run(options.kills, options.seed)
    except InputError as error:
        print(f"kills: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=2))
    return 0 if found["equal"] == found["runs"] else 1


if __name__ == "__main__":
    sys.exit(main())
