"""Runs that are killed at random moments, again and again, end as one that never was.

    python -m benchmarks.kills language --kills 50
    python -m benchmarks.kills train --kills 50 --keep kills.jsonl

SIGKILL comes after a random share of an undisturbed run's time, so that it strikes every part of it alike; the same
command then goes on. That time is measured again and again, for computers are now more and now less busy. The moments
are drawn by `--seed`. After each kill no child may be left, what had been kept must still be there, and not more than
one interval between checkpoints may be lost; in the end the result must be the undisturbed run's to the last bit, and
of runs in real time a whole one. With `--keep` each finished run is a line of a file, and a bench that was ended goes
on after the last one.

- `language`: two small models are made on the spot and one is distilled into the other by `barkour distill language`,
  with dropout, a checkpoint after every step and answers that the student writes.
- `recommender`: a language model learns to prescribe, and what it says is distilled by `barkour distill recommender`.
- `vision`: one model that sees is distilled into another in two stages by `barkour distill vision`.
- `recipe`: a recipe with a small budget and two seeds side by side, whose arms are kept one by one.
- `train`: PPO on a few worlds, with a checkpoint after every iteration.
- `ros`: the course over four ROS 2 processes on loopback, with a recording of the control loop. Nothing goes on there:
  what was recorded must be whole up to the kill, and the next run in the same folder must come to its end.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sim.errors import InputError

STEPS = 24
RECIPE = "ddk"
WORLDS, UNROLL, ITERATIONS = 12, 24, 6
"""Of the training that is killed: its checkpoints are `WORLDS * UNROLL` steps apart."""
ORPHANS = 20.0
"""Children of a process that was killed end within so many seconds."""
EACH = 10
"""Kills of one run, at most."""
AGAIN = 5
"""Runs, after which an undisturbed one is timed anew."""
MARK = "BARKOUR_KILLS"
"""Variable of a run's processes, by which children of children are known."""


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


def patients(folder: Path) -> None:
    """A teacher, and patients whose medications follow from their diagnoses."""
    home(folder)
    rows = [
        {"visits": [{"diagnoses": [f"D{i % 6}"], "procedures": [], "medications": [f"M{i % 3}", f"N{i % 2}"]}]}
        for i in range(60)
    ]
    (folder / "patients.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def recommender(where: Path, out: Path) -> list[str]:
    """The command, as a user gives it again and again."""
    words = ["distill", "recommender", "--resume", "--teacher", where / "teacher", "--data", where / "patients.jsonl"]
    words += ["--out", out, "--steps", STEPS, "--rounds", 4, "--batch", 8, "--length", 60, "--width", 16, "--heads", 2]
    return [*map(str, words), "--teacher-epochs", "2", "--checkpoint-minutes", "0"]


def pictures(folder: Path) -> None:
    """Two models that see, their processors, and images of one colour."""
    import numpy as np
    from PIL import Image
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    from distill.language.models import Shape
    from distill.language.text import END, PAD, byte_level
    from distill.language.vision import VisionShape, build_seeing

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level().tokenizer, pad_token=PAD, eos_token=END,
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    images: Any = SiglipImageProcessorPil(size={"height": 8, "width": 8})
    for name, width in (("teacher", 24), ("student", 16)):
        token = tokenizer.get_vocab()["<image>"]
        shape = VisionShape(Shape(len(tokenizer), width, 2, 2, context=64), token, width=8, heads=2)
        build_seeing(shape, width, eyes=3).save_pretrained(folder / name)
        whole = LlavaProcessor(images, tokenizer, patch_size=2, vision_feature_select_strategy="full")
        whole.save_pretrained(folder / name)
    rows: list[dict[str, str]] = []
    for i in range(24):
        colour = [(255, 0, 0), (0, 255, 0), (0, 0, 255)][i % 3]
        Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(folder / f"{i}.png")
        rows.append({"image": f"{i}.png", "prompt": "what?", "answer": ["red", "green", "blue"][i % 3]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def vision(where: Path, out: Path) -> list[str]:
    """The command, as a user gives it again and again."""
    words = ["distill", "vision", "--resume", "--teacher", where / "teacher", "--student", where / "student"]
    words += ["--data", where / "rows.jsonl", "--stages", "SFT", "DFT", "--out", out, "--steps", STEPS // 2]
    words += ["--rounds", 3, "--batch", 4, "--length", 60]
    return [*map(str, words), "--checkpoint-minutes", "0"]


def student(out: Path) -> str:
    """SHA-256 of the weights."""
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


def stage(out: Path) -> tuple[int, str]:
    """How far a run had come, as a number that never falls and in words."""
    if (out / "summary.json").is_file():
        return 10**6, "folder written"
    run, rounds = out / "run", dict[str, int]()
    for folder in (run, *sorted(path for path in run.glob("*") if path.name != "best")):
        for name in ("checkpoint.old", "checkpoint"):
            state = folder / name / "state.json"
            if state.is_file():
                rounds["" if folder == run else f"{folder.name}, "] = json.loads(state.read_text())["position"]["round"]
    if not rounds:
        return -1, "before the first checkpoint"
    return sum(1 + number for number in rounds.values()), "; ".join(f"{name}round {n}" for name, n in rounds.items())


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


def train(where: Path, out: Path) -> list[str]:
    """The command, as a user gives it again and again."""
    steps = str(WORLDS * UNROLL * ITERATIONS)
    words = ["train", "walk", "--out", str(out), "--steps", steps, "--worlds", str(WORLDS), "--threads", "1"]
    return [*words, "--checkpoint-minutes", "0", "--resume"]


def newest(out: Path) -> int:
    """Steps of the newest whole checkpoint."""
    kept = [*(out / "checkpoints").glob("step_*[0-9]"), *(out / "checkpoints").glob("step_*.old")]
    return max((int(one.name[5:17]) for one in kept if (one / "state.json").is_file()), default=-1)


def trained(out: Path) -> str:
    """SHA-256 of all that the last checkpoint holds, and the steps that were logged, each once."""
    arrays = out / "checkpoints" / f"step_{newest(out):012d}" / "arrays.safetensors"
    bundle = (out / "walk.onnx").is_file() and (out / "summary.json").is_file()
    return f"{hashlib.sha256(arrays.read_bytes()).hexdigest()} {logged(out)} {bundle}"


def logged(out: Path) -> list[int]:
    """Steps after each iteration, by the log's whole lines."""
    log = out / "log.jsonl"
    lines = log.read_text().split("\n")[:-1] if log.is_file() else []
    return [json.loads(line)["steps"] for line in lines]


def iterations(out: Path) -> tuple[int, str]:
    """How far training had come."""
    return newest(out), f"{max(newest(out), 0) // (WORLDS * UNROLL)} iterations"


def iterations_lost(out: Path) -> int:
    """Iterations that were logged and are in no checkpoint."""
    return sum(steps > newest(out) for steps in logged(out))


def ros(where: Path, out: Path) -> list[str]:
    """The command; each time it records into a file of its own."""
    file = out / f"loop_{len(recordings(out))}.mcap"
    return ["ros", "course", "--seed", "3", "--out", str(out), "--record", str(file)]


def recordings(out: Path) -> list[Path]:
    """Those of a folder, oldest first."""
    return sorted(out.glob("loop_*.mcap"), key=lambda file: int(file.stem[5:]))


def whole_course(out: Path) -> str:
    """That there are a result and a pose log of one run: how it went differs, as the computer's load does."""
    result = json.loads((out / "RESULT.json").read_text())
    known = {"score", "obstacles", "controller", "died"} <= result.keys() and result["died"] is None
    return "whole" if known and (out / "pose.csv").is_file() and steps_in(recordings(out)[-1]) > 50 else "not whole"


def steps_in(file: Path) -> int:
    """Whole control steps of a recording; 0 where it has no header yet. Raises `InputError` where it cannot be read."""
    from robot.loop.recording import read

    if file.stat().st_size < 4096:  # the header alone is longer: the kill came before the first step
        with contextlib.suppress(InputError):
            return len(read(file).steps)
        return 0
    return len(read(file).steps)


def course_killed(out: Path) -> tuple[int, str]:
    """How far the run was that was killed; nothing of it goes on, so that it cannot fall behind."""
    files = recordings(out)
    if not files:
        return 0, "before it recorded"
    with contextlib.suppress(InputError):
        return 0, f"{steps_in(files[-1]) // 500 * 10} s recorded"
    return 0, "recording"


def unreadable(out: Path) -> int:
    """Recordings that cannot be read, each as if all of it were lost."""
    bad = 0
    for file in recordings(out):
        try:
            steps_in(file)
        except InputError:
            bad += 2
    return bad


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
    lost: Callable[[Path], int] = lambda out: 0
    """Intervals between checkpoints that a kill cost; one may be."""
    program: tuple[str, ...] = (sys.executable, "-m", "barkour")
    statuses: tuple[int, ...] = (0,)
    """Exit statuses of a run that came to its end."""
    goes_on: bool = True
    """Whether the same command goes on after a kill; otherwise it begins anew."""


KINDS = {
    "language": Kind(language, student, stage, home),
    "recommender": Kind(recommender, student, stage, patients),
    "vision": Kind(vision, student, stage, pictures),
    "recipe": Kind(recipe, measured, finished_arms),
    "train": Kind(train, trained, iterations, lost=iterations_lost, statuses=(0, 2)),  # 2: it had come to its end
    "ros": Kind(ros, whole_course, course_killed, lost=unreadable, statuses=(0, 1), goes_on=False),
}


@dataclass(frozen=True)
class Run:
    """A run that was killed again and again and came to its end."""

    kind: str
    seed: int
    number: int
    kills: int
    equal: bool
    """Whether it ended as the undisturbed one."""
    orphans: int = 0
    """Kills after which children went on."""
    fell: int = 0
    """Kills that took what had been kept before."""
    lost: int = 0
    """Kills that cost more than one interval between checkpoints."""
    struck: dict[str, int] = field(default_factory=dict)
    """How far it had come -> kills."""


def begin(kind: Kind, where: Path, out: Path, mark: str) -> subprocess.Popen[bytes]:
    """The command in a session of its own, its processes marked."""
    command = [*kind.program, *kind.words(where, out), "--json"]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env=_surroundings(where, mark),
    )  # fmt: skip


def finished(kind: Kind, where: Path, out: Path) -> float:
    """Runs a command to its end and says how long that took, s. Raises `InputError` where it is no good one."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        command = [*kind.program, *kind.words(where, out), "--json"]
        status = subprocess.call(command, stdout=subprocess.DEVNULL, stderr=said, env=_surroundings(where, ""))
        said.seek(0)
        if status not in kind.statuses:
            raise InputError(f"status {status}: {(said.read().strip() or 'nothing').splitlines()[-1]}")
    return time.monotonic() - began


def _surroundings(where: Path, mark: str) -> dict[str, str]:
    """Compiled programs are kept, or every run of a few seconds would compile for a minute."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(where / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    return {**os.environ, **cache, MARK: mark}


def left(mark: str) -> list[int]:
    """Processes with a mark that still run."""
    found: list[int] = []
    wanted = f"{MARK}={mark}".encode()
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (each / "environ").read_bytes().split(b"\0"):
                found.append(int(each.name))
    return found


@dataclass
class Undisturbed:
    """What a run is that nobody kills."""

    result: str
    seconds: float
    """Of the last one that was timed."""


def once(name: str, kind: Kind, where: Path, seed: int, number: int, undisturbed: Undisturbed, most: int) -> Run:
    """One run, killed `most` times at most. Where it ends before it is killed, that tells how long one takes now."""
    rng, struck, best = random.Random(f"{seed} {number}"), Counter[str](), -1
    kills = orphans = fell = lost = 0
    with tempfile.TemporaryDirectory(dir=where) as place:
        out = Path(place) / "run"
        while kills < most:
            mark = uuid.uuid4().hex
            process, began = begin(kind, where, out, mark), time.monotonic()
            try:
                process.wait(rng.uniform(0.2, 1.05) * undisturbed.seconds)
                if process.returncode in kind.statuses and not (kills and kind.goes_on):
                    undisturbed.seconds = time.monotonic() - began
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            until = time.monotonic() + ORPHANS
            while (alive := left(mark)) and time.monotonic() < until:
                time.sleep(0.1)
            for one in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
            far, words = kind.stage(out)
            kills, orphans, fell = kills + 1, orphans + bool(alive), fell + (far < best)
            lost += kind.lost(out) > 1
            best = max(best, far)
            struck[words] += 1
        seconds = finished(kind, where, out)
        if not kind.goes_on:
            undisturbed.seconds = seconds
        equal = kind.result(out) == undisturbed.result
        return Run(name, seed, number, kills, equal, orphans, fell, lost, dict(struck))


def campaign(name: str, kind: Kind, kills: int, seed: int, keep: Path | None = None) -> list[Run]:
    """Kills so many times over as many runs as that takes; those that `keep` holds are not run again.

    Raises:
      InputError: the undisturbed run, or one that was killed, comes to no good end; `keep` is no file of this bench.
    """
    runs = kept(keep, name, seed)
    if sum(run.kills for run in runs) >= kills:
        return runs
    with tempfile.TemporaryDirectory() as place:
        where = Path(place)
        kind.home(where)
        finished(kind, where, where / "first")  # and fills caches
        wanted = kind.result(where / "first")
        undisturbed = Undisturbed(wanted, _timed(name, kind, where, wanted))
        begun = len(runs)
        while (done := sum(run.kills for run in runs)) < kills:
            if kind.goes_on and len(runs) > begun and (len(runs) - begun) % AGAIN == 0:
                undisturbed.seconds = _timed(name, kind, where, wanted)
            runs.append(once(name, kind, where, seed, len(runs), undisturbed, min(EACH, kills - done)))
            if keep is not None:
                with keep.open("a") as file:
                    file.write(json.dumps(asdict(runs[-1])) + "\n")
            print(json.dumps(total(runs)), file=sys.stderr, flush=True)
    return runs


def _timed(name: str, kind: Kind, where: Path, wanted: str) -> float:
    """How long an undisturbed run takes now, s; raises `InputError` where it ends otherwise than the first."""
    with tempfile.TemporaryDirectory(dir=where) as place:
        seconds = finished(kind, where, Path(place) / "whole")
        if kind.result(Path(place) / "whole") != wanted:
            raise InputError(f"two undisturbed runs of {name} end differently")
    return seconds


def kept(file: Path | None, name: str, seed: int) -> list[Run]:
    """Runs of a kind and seed that an ended bench left; what it was writing when it ended is cut off."""
    if file is None or not file.exists():
        return []
    text = file.read_text()
    whole = text[: text.rfind("\n") + 1]
    try:
        every = [Run(**json.loads(line)) for line in whole.splitlines()]
    except (ValueError, TypeError) as error:
        raise InputError(f"{file} is no file of this bench") from error
    if whole != text:
        file.write_text(whole)
    return [run for run in every if (run.kind, run.seed) == (name, seed)]


def total(runs: Sequence[Run]) -> dict[str, Any]:
    """JSON-ready: `kills`, `runs`, and how many runs ended `equal`, kills with `orphans`, that `fell` or `lost`."""
    struck = sum((Counter(run.struck) for run in runs), Counter[str]())
    counts = {name: sum(getattr(run, name) for run in runs) for name in ("kills", "equal", "orphans", "fell", "lost")}
    return {**counts, "runs": len(runs), "struck": dict(struck)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 where a run ended otherwise, 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=KINDS, nargs="?", default="language")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="file of finished runs, one a line: the bench goes on after them")
    options = parser.parse_args(arguments)
    try:
        if options.kills < 1:
            raise InputError("there must be one kill at least")
        found = total(campaign(options.kind, KINDS[options.kind], options.kills, options.seed, options.keep))
    except (InputError, OSError) as error:
        print(f"kills: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=2))
    faults = found["orphans"] + found["fell"] + found["lost"]
    return 0 if found["equal"] == found["runs"] and not faults else 1


if __name__ == "__main__":
    sys.exit(main())
