"""Distillation of a language model on the core, against TRL's trainers and a plain torch loop: tokens/s and memory.

    barkour bench distill --rounds 3
    barkour bench distill --vocabularies 8192 49152 152064 --lengths 512 2048
    barkour bench distill --vocabularies 8192 --lengths 512 --processes 1 2

Every arm trains the same Llama-type student from the same teacher on the same tokens with the same loss (generalised
Jensen-Shannon, beta 0.5), AdamW, gradient clipping and batch size, in float32, in a process of its own. Arms take
turns, so that what else the computer does strikes all. Time is counted from the beginning of the step after `warm_up`
others; memory is the process's peak while it trains less what it held before. On-policy arms train on texts that the
student writes: TRL one batch at a time, this project `AHEAD` batches together, which makes its texts up to `AHEAD`
steps old; its steps are counted in whole rounds, each with its writing. TRL's stable `DistillationTrainer` is on-policy
alone; off-policy it is given the data's texts where it would write.

Sizes that are asked for have `FEW` texts in a batch, and those of long steps fewer steps; an arm that keeps all logits
and would not fit in the memory that is free is left out, and said. Several processes of one arm share the cores: each
has a batch of its own, gradients are averaged over all (gloo), tokens are counted over all, memory is of the process
that takes most.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distill.core.folders import end_with_parent
from distill.options import DistillBenchOptions
from distill.results import DistillBench
from sim.children import ended, environment, running
from sim.errors import InputError
from sim.machine import machine

AHEAD = 8
BETA, BATCH, RATE = 0.5, 8, 1e-3
TEACHER, STUDENT = (128, 4, 4), (64, 2, 4)
"""Width, layers, heads."""
FEW = 2
"""Texts in a batch of the sizes that are asked for."""
LONG = 2**25
"""Vocabulary times length of a text from which steps are so long that few of them are counted."""
LOGITS_KEPT = {"plain": 6, "trl": 10}
"""Times that the logits of a batch stand in memory at once, at most, by who keeps them whole: measured, rounded up."""
PROMPT = 16
"""Tokens that an on-policy text begins with."""


@dataclass(frozen=True)
class Arm:
    """One process, or several that learn one student."""

    who: str
    """`barkour`, `plain`, or one of TRL's trainers: `trl` (GKD) and `trl distillation` (its chunked, on-policy one)."""
    vocabulary: int = 8192
    length: int = 256
    """Tokens of a text that are predicted."""
    steps: int = 12
    """That are counted; this project's on-policy ones are rounded up to whole rounds."""
    on_policy: bool = False
    seed: int = 0
    batch: int = BATCH
    """Texts of a process."""
    processes: int = 1
    warm_up: int = 3
    """Steps before those that are counted."""

    @property
    def rounds(self) -> int:
        """Whole rounds that are counted, of texts written together."""
        return -(-self.steps // AHEAD) if self.on_policy and self.who == "barkour" else 0

    @property
    def counted(self) -> int:
        """Steps that are counted."""
        return AHEAD * self.rounds or self.steps

    @property
    def trained(self) -> int:
        """Steps in all: another one's beginning is the end of those that are counted."""
        return self.warm_up + self.counted + 1

    @property
    def learned(self) -> int:
        """Tokens of a text that are learned from."""
        return self.length - PROMPT if self.on_policy or self.who == "trl distillation" else self.length

    @property
    def bytes(self) -> int:
        """What all logits of a batch take in memory, where they are kept whole."""
        return LOGITS_KEPT.get(self.who, 0) * 4 * self.batch * self.length * self.vocabulary * self.processes


# --- one arm, in processes of its own --------------------------------------------------------------------------------


def measure(arm: Arm) -> dict[str, Any]:
    """Trains one arm, or the part of it that is this process's; `tokens_per_second` of all processes, `peak_kb` of this
    one, and the mean `loss` of two texts before and after."""
    import numpy as np
    import torch

    from distill.core.processes import leaves_at_exit
    from distill.language.models import Shape, build

    leaves_at_exit()  # whoever connects them
    teacher = build(Shape(arm.vocabulary, *TEACHER, context=2 * arm.length), 1)
    student = build(Shape(arm.vocabulary, *STUDENT, context=2 * arm.length), 2)
    rng = np.random.default_rng(arm.seed)
    rows = arm.processes * arm.batch * arm.trained
    tokens = rng.integers(3, arm.vocabulary, (rows, arm.length + 1))
    probe = torch.from_numpy(tokens[:2])
    before = _divergence(teacher, student, probe)
    held, stamps = _reset_peak(), []
    ways = {"barkour": _barkour, "plain": _plain, "trl": _trl, "trl distillation": _trl_distillation}
    ways[arm.who](arm, teacher, student, tokens, stamps)
    peak = _memory("VmHWM") - held
    spent = stamps[arm.warm_up + arm.counted + arm.rounds] - stamps[arm.warm_up]  # a round's end is measured, too
    return {
        "tokens_per_second": arm.counted * arm.processes * arm.batch * arm.learned / spent,
        "peak_kb": peak, "loss": [before, _divergence(teacher, student, probe)], "steps": arm.counted,
    }  # fmt: skip


def _divergence(teacher: Any, student: Any, tokens: Any) -> float:
    import torch

    with torch.no_grad():
        p, q = (model(input_ids=tokens[:, :-1]).logits.log_softmax(-1) for model in (teacher, student))
    return float((p.exp() * (p - q)).sum(-1).mean())


class _Stamped:
    """A teacher that notes when it is asked: once a step, and once when the loop measures at a round's end."""

    def __init__(self, teacher: Any, stamps: list[float]) -> None:
        self.teacher, self.stamps, self.kind = teacher, stamps, teacher.kind

    def label(self, batch: Any) -> Any:
        """As the teacher."""
        self.stamps.append(time.perf_counter())
        return self.teacher.label(batch)

    def fingerprint(self) -> str:
        """The teacher's."""
        return self.teacher.fingerprint()


def _barkour(arm: Arm, teacher: Any, student: Any, tokens: Any, stamps: list[float]) -> None:
    """The core's loop as recipes call it: neither model's logits exist as a whole."""
    import numpy as np

    from distill.core.fit import fit
    from distill.core.objectives.divergences import JensenShannon
    from distill.core.tables import FixedDomain
    from distill.language.collect import Generated
    from distill.language.student import ChunkedStudent, projected

    steps = arm.trained
    rounds = -(-steps // AHEAD) if arm.on_policy else 1
    if arm.on_policy:
        steps = rounds * AHEAD
        source: Any = Generated(
            "own", tokens[:, :PROMPT].astype(np.int64), teacher, student, arm.length + 1 - PROMPT, arm.vocabulary
        )
    else:
        source = FixedDomain("text", {"tokens": tokens, "mask": np.ones(tokens[:, 1:].shape, bool)})
    watched: Any = _Stamped(projected(teacher, arm.vocabulary), stamps)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            ChunkedStudent(student, arm.vocabulary), JensenShannon(beta=BETA), watched, [source], Path(folder) / "run",
            steps=steps, batch=arm.batch, seed=arm.seed, rounds=rounds, rows=arm.batch * AHEAD,
            learning_rate=RATE, beta=0.0 if arm.on_policy else 1.0, evaluate=lambda _: {"golden": 0.0},
        )  # fmt: skip


def _plain(arm: Arm, teacher: Any, student: Any, tokens: Any, stamps: list[float]) -> None:
    """What one writes by hand."""
    import torch
    from torch.nn import functional as F

    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.01)
    student.train()
    learner = student
    if arm.processes > 1:
        torch.distributed.init_process_group("gloo")
        learner = torch.nn.parallel.DistributedDataParallel(student)
    mine = arm.batch * int(os.environ.get("RANK", "0"))
    for first in range(mine, len(tokens), arm.processes * arm.batch):
        stamps.append(time.perf_counter())
        batch = torch.from_numpy(tokens[first : first + arm.batch])[:, :-1]
        with torch.no_grad():
            log_p = teacher(input_ids=batch, use_cache=False).logits.log_softmax(-1)
        log_q = learner(input_ids=batch, use_cache=False).logits.log_softmax(-1)
        log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0))
        both = [F.kl_div(log_m, x, reduction="sum", log_target=True) for x in (log_p, log_q)]
        loss = (both[0] + both[1]) / 2 / batch.numel()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()


def _trl(arm: Arm, teacher: Any, student: Any, tokens: Any, stamps: list[float]) -> None:
    """TRL's GKD trainer."""
    import torch
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        ids = torch.tensor([row["input_ids"] for row in rows])
        labels, prompts = ids.clone(), ids[:, :PROMPT]
        labels[:, :1] = -100
        return {
            "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "prompts": prompts,
            "prompt_attention_mask": torch.ones_like(prompts),
        }  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        options: Any = GKDConfig(
            **_trl_options(arm, folder), lmbda=float(arm.on_policy), max_new_tokens=arm.length + 1 - PROMPT,
            dataset_kwargs={"skip_prepare_dataset": True},
        )  # fmt: skip
        trainer: Any = GKDTrainer
        trainer(
            model=student, teacher_model=teacher, args=options, data_collator=collate, callbacks=[_stamp(stamps)],
            train_dataset=Dataset.from_dict({"input_ids": tokens.tolist()}), processing_class=_words(arm.vocabulary),
        ).train()  # fmt: skip


def _trl_distillation(arm: Arm, teacher: Any, student: Any, tokens: Any, stamps: list[float]) -> None:
    """TRL's distillation trainer, which writes with the student and takes logits in chunks; off-policy it takes over
    the data's texts where it would write."""
    from datasets import Dataset
    from trl.trainer.distillation_config import DistillationConfig
    from trl.trainer.distillation_trainer import DistillationTrainer

    prompts = [" ".join(map(_word, row[:PROMPT])) for row in tokens]
    with tempfile.TemporaryDirectory() as folder:
        options: Any = DistillationConfig(
            **_trl_options(arm, folder), max_completion_length=arm.length + 1 - PROMPT, top_k=0
        )
        trainer: Any = DistillationTrainer if arm.on_policy else _from_data(DistillationTrainer, tokens)
        trainer(
            model=student, teacher_model=teacher, args=options, callbacks=[_stamp(stamps)],
            train_dataset=Dataset.from_dict({"prompt": prompts}), processing_class=_words(arm.vocabulary),
        ).train()  # fmt: skip


def _from_data(trainer: Any, tokens: Any) -> Any:
    """The trainer with the rest of each row in place of what the student would write."""
    rest = {tuple(row[:PROMPT].tolist()): row[PROMPT:].tolist() for row in tokens}

    class FromData(trainer):
        def _generate_single_turn(self, prompt_ids: Any, *more: Any) -> list[list[int]]:
            return [rest[tuple(ids)] for ids in prompt_ids]

    return FromData


def _trl_options(arm: Arm, folder: str) -> dict[str, Any]:
    """The same training; checkpoints, reports and gradient checkpointing are off."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    return {
        "output_dir": folder, "per_device_train_batch_size": arm.batch, "max_steps": arm.trained,
        "seed": arm.seed, "learning_rate": RATE, "weight_decay": 0.01, "max_grad_norm": 1.0, "beta": BETA,
        "temperature": 1.0, "gradient_checkpointing": False,
        "bf16": False, "use_cpu": True, "report_to": [], "save_strategy": "no",
        "logging_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip


def _stamp(stamps: list[float]) -> Any:
    from transformers import TrainerCallback

    class Stamp(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            stamps.append(time.perf_counter())

    return Stamp()


def _words(vocabulary: int) -> Any:
    """A tokenizer for numbers; TRL's trainers ask for one."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({_word(k): k for k in range(vocabulary)}, _word(0)))
    tokenizer.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=_word(0), eos_token=_word(1))


def _word(token: int) -> str:
    """Of one length, so that no special token's word is a part of another's."""
    return f"t{token:06d}"


def _reset_peak() -> int:
    """Resident memory, kB, from which the peak is counted from now on."""
    import gc

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _available() -> int:
    """Bytes of memory that a new process can have; all that it may want where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return sys.maxsize
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), sys.maxsize)


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise InputError("this system does not tell a process's memory: Linux is needed")


# --- all arms -----------------------------------------------------------------------------------------------------


def arms(
    quick: bool = False, vocabularies: Sequence[int] = (), lengths: Sequence[int] = (), processes: Sequence[int] = ()
) -> dict[str, Arm]:
    """Name -> what is measured: each size, or those that show how memory grows where none is asked for."""
    if vocabularies or lengths or processes:
        return sized(quick, vocabularies or (8192,), lengths or (512,), processes or (1,))
    who = ["barkour", "plain", *(["trl"] if find_spec("trl") else [])]
    steps, on_policy = (4, 2) if quick else (12, AHEAD)
    named = {name: Arm(name, steps=steps) for name in who}
    named |= {f"{name}, four times the text": Arm(name, length=1024, steps=max(steps // 3, 2)) for name in who}
    named |= {f"{name}, vocabulary 512": Arm(name, vocabulary=512, steps=3 * steps) for name in who}
    writing = [name for name in who if name != "plain"]
    if "trl" in who:
        named["trl distillation"] = Arm("trl distillation", steps=steps)
        writing.append("trl distillation")
    named |= {f"{name}, on-policy": Arm(name, length=128, steps=on_policy, on_policy=True) for name in writing}
    return named


def sized(
    quick: bool, vocabularies: Sequence[int], lengths: Sequence[int], processes: Sequence[int] = (1,)
) -> dict[str, Arm]:
    """Every arm at every size, off- and on-policy, in so many processes."""
    who = ["barkour", "plain", *(["trl", "trl distillation"] if find_spec("trl") else [])]

    def arm(name: str, vocabulary: int, length: int, on_policy: bool, count: int) -> Arm:
        steps, warm_up = (2, 3) if quick else (3, 1) if vocabulary * length > LONG else (AHEAD, 3)
        return Arm(name, vocabulary, length, steps, on_policy, batch=FEW, processes=count, warm_up=warm_up)

    return {
        f"{name}, vocabulary {vocabulary}, texts of {length}{_how(on_policy, count)}": arm(
            name, vocabulary, length, on_policy, count
        )
        for count in processes
        for vocabulary in vocabularies
        for length in lengths
        for on_policy in (False, True)
        for name in who
        if not (on_policy and name == "plain")
    }


def _how(on_policy: bool, processes: int) -> str:
    return (", on-policy" if on_policy else "") + (f", {processes} processes" if processes > 1 else "")


def run(
    options: DistillBenchOptions, say: Callable[[str], None] = lambda text: print(text, file=sys.stderr)
) -> DistillBench:
    """What `barkour bench distill` prints.

    Returns:
      `arms`: name -> `tokens_per_second`, `peak_kb` (medians over rounds), `loss`; `ratios`: tokens/s of this project
      over the other's, median of the rounds' paired ratios with the least and the largest; `logits_kept`: by how many
      times the size of a batch of logits memory grows where texts grow four times, the models' own share included;
      and on what it was measured. Without TRL its arms are left out, and `trl` is null.

    Raises:
      InputError: an arm failed, with the last line that it said.
    """
    rounds = options.rounds
    named = arms(options.quick, options.vocabularies, options.lengths, options.processes)
    if any(length <= PROMPT for length in options.lengths):
        raise InputError(f"a text begins with {PROMPT} tokens: --lengths must be above")
    free = _available()
    left_out = {name: arm.bytes for name, arm in named.items() if arm.bytes > free}
    for name, size in left_out.items():
        say(f"left out: {name} keeps about {size / 1e9:.0f} GB of logits, {free / 1e9:.0f} GB are free")
    named = {name: arm for name, arm in named.items() if name not in left_out}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in named}
    for turn in range(rounds):
        for name, arm in named.items():
            found[name].append(_child(arm))
            say(f"round {turn + 1} of {rounds}: {name} {found[name][-1]['tokens_per_second']:.0f} tokens/s")
    speeds = {name: [row["tokens_per_second"] for row in rows] for name, rows in found.items()}
    peaks = {name: statistics.median(row["peak_kb"] for row in rows) for name, rows in found.items()}
    ratios = {}
    for name in named:
        who, _, where = name.partition(",")
        if who == "barkour":
            continue
        pairs = [ours / theirs for ours, theirs in zip(speeds[f"barkour{_}{where}"], speeds[name], strict=True)]
        ratios[name] = {"median": statistics.median(pairs), "least": min(pairs), "largest": max(pairs)}
    base = Arm("")
    logits = BATCH * base.vocabulary * 4 / 1024  # kB for one position of each text
    more = "four times the text"
    kept = {
        who: (peaks[f"{who}, {more}"] - peaks[who]) / (logits * (named[f"{who}, {more}"].length - base.length))
        for who in ("barkour", "plain", "trl")
        if who in named and f"{who}, {more}" in named
    }
    return DistillBench.of({
        "arms": {
            name: {**asdict(named[name]), "tokens_per_second": statistics.median(speeds[name]), "peak_kb": peaks[name],
                   "loss": rows[-1]["loss"]}
            for name, rows in found.items()
        },
        "ratios": ratios, "logits_kept": kept, "left_out": left_out, "rounds": rounds,
        "teacher": TEACHER, "student": STUDENT,
        "trl": _version("trl"), "torch": _version("torch"), "transformers": _version("transformers"),
        "machine": machine(),
    })  # fmt: skip


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _child(arm: Arm) -> dict[str, Any]:
    """What the processes of an arm measured; ended together where one fails or this one is interrupted."""
    command = [sys.executable, "-P", "-m", "distill.language.throughput"]  # -P: not what lies in the current folder
    command += ["--arm", json.dumps(asdict(arm)), "--parent", str(os.getpid())]
    with tempfile.TemporaryDirectory() as folder:  # what an arm that is interrupted leaves goes with it
        with contextlib.ExitStack() as ending:
            ranks: list[subprocess.Popen[str]] = []
            for rank, more in enumerate(_ranks(arm.processes)):
                with (Path(folder) / f"{rank}.out").open("w") as out, (Path(folder) / f"{rank}.err").open("w") as err:
                    where = environment(TMPDIR=folder, **more)
                    ranks.append(ending.enter_context(running(command, stdout=out, stderr=err, text=True, env=where)))
            states: list[int | None] = [None]
            while None in states and not any(states):
                time.sleep(0.02)
                states = [ended(process) for process in ranks]
            failed = next((rank for rank, state in enumerate(states) if state), None)
        if failed is not None:
            said = (Path(folder) / f"{failed}.err").read_text(errors="replace").strip() or "nothing"
            status = ranks[failed].returncode
            raise InputError(f"the arm '{arm.who}' failed with status {status}: {said.splitlines()[-1]}")
        files = [Path(folder) / f"{rank}.out" for rank in range(arm.processes)]
        found = [json.loads(file.read_text(errors="replace").splitlines()[-1]) for file in files]
    return found[0] | {"peak_kb": max(part["peak_kb"] for part in found)}


def _ranks(processes: int) -> list[dict[str, str]]:
    """What each of several processes finds in its environment, as `torchrun` sets it; nothing where there is one."""
    if processes == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = max(1, (os.cpu_count() or 1) // processes)
    all_alike = {
        "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "OMP_NUM_THREADS": threads, "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    ranks = ({**all_alike, "RANK": rank, "LOCAL_RANK": rank} for rank in range(processes))
    return [{name: str(value) for name, value in rank.items()} for rank in ranks]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few steps: tries the code, proves nothing")
    parser.add_argument("--vocabularies", type=int, nargs="*", default=[])
    parser.add_argument("--lengths", type=int, nargs="*", default=[])
    parser.add_argument("--processes", type=int, nargs="*", default=[])
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--parent", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        if options.arm:
            end_with_parent(options.parent)
            print(json.dumps(measure(Arm(**json.loads(options.arm)))))
            return 0
        sizes = (tuple(each) for each in (options.vocabularies, options.lengths, options.processes))
        found = run(DistillBenchOptions(options.rounds, options.quick, *sizes))
    except InputError as error:
        print(f"distillation: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found.to_dict(), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
