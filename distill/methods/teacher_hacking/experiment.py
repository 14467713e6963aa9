"""Teacher hacking: closer to the teacher and further from the truth (arXiv 2502.02671).

A random network is the oracle, so truth is exact. A teacher learns from few of its texts, a student from the teacher:
on one fixed set of answers, on several answers a prompt, or on fresh ones.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distill.core.monitor import rise_after_best
from distill.core.tables import FixedDomain, RowSampler
from distill.language.collect import Generated
from distill.language.models import Shape
from distill.language.student import ModelStudent, dense
from distill.methods.framework import Arm, Place, Recipe, Scale, Trial
from distill.methods.method import MethodOptions
from distill.methods.statistics import Check, Interval, Results
from distill.methods.teacher_hacking.method import METHOD
from distill.methods.teacher_hacking.oracle_texts import OracleTexts


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment."""

    symbols: int = 16
    prompt: int = 4
    answer: int = 12
    window: int = 4
    oracle: int = 128
    """Hidden units, as of the other networks."""
    peak: float = 3.0
    """Scale of the oracle's logits."""
    teacher: int = 96
    student: int = 256
    small_student: int = 48
    texts: int = 2000
    """Of the oracle, for the teacher and the student's start."""
    teacher_steps: int = 1500
    start_steps: int = 150
    prompts: int = 80
    held_out: int = 300
    steps: int = 2000
    interval: int = 100
    batch: int = 21
    """Texts of 12 positions."""
    learning_rate: float = 3e-3


@dataclass(frozen=True)
class Source(Arm):
    """Where the answers of one arm come from."""

    prompts: float = 1.0
    """Times `Settings.prompts`."""
    answers: int = 1
    """A prompt, where they are fixed; 0 draws them anew all the time."""
    by_student: bool = False
    oracle: bool = False
    """The oracle takes the teacher's place."""
    small: bool = False
    needs: tuple[str, ...] = field(default=("online teacher",), kw_only=True)
    """The arm whose curve is a healthy run's; the healthy run is its own."""


def run_arm(trial: Trial, lab: OracleTexts, source: Source) -> dict[str, Any]:
    """Distils the start along one source of answers, token by token with the forward divergence."""
    s = lab.settings
    teacher = lab.oracle if source.oracle else lab.teacher
    model = lab.student(source.small)
    model.load_state_dict(lab.starts[source.small])
    prompts = lab.prompts(round(s.prompts * source.prompts), 8)
    if source.answers:
        rows = lab.write(teacher, np.tile(prompts, (source.answers, 1)), 9)
        collector: Any = FixedDomain("answers", rows)
    else:
        collector = Generated("answers", prompts, teacher, model, s.answer, s.symbols)
    curve = [{"step": 1.0, **lab.distances(model, teacher)}]

    def evaluate(student: Any) -> dict[str, float]:
        found = lab.distances(student.module, teacher)
        return {"golden": -found["truth"], "held_out": found["proxy"]}

    ((_, objective),) = METHOD.losses(MethodOptions()).values()
    steps = trial.scaled(s.steps)
    rounds = max(steps // s.interval, 3)
    summary = trial.fit(
        ModelStudent(model, lab.read), objective, dense(teacher, lab.read), [collector], steps=s.steps, rounds=rounds,
        rows=s.batch * (steps // rounds), batch=s.batch, learning_rate=s.learning_rate,
        last_learning_rate=s.learning_rate, beta=float(not source.by_student), sampler=RowSampler(newest=True),
        evaluate=evaluate,
    )  # fmt: skip
    trial.keep(model)
    curve += [{"step": m["step"], "proxy": m["held_out"], "truth": -m["golden"]} for m in summary["measured"]]
    truth, proxy = (np.array([point[key] for point in curve]) for key in ("truth", "proxy"))
    best, rise = int(truth.argmin()), rise_after_best(truth.tolist())
    kind = "none" if rise <= 0.01 else "strict" if proxy[-1] < proxy[best] else "over-fit only"
    healthy = trial.measured(source.needs[0])["curve"] if source.needs else curve
    alarm = departure(healthy, curve)
    return {
        "rise": rise, "proxy_change": proxy[-1] - proxy[best], "truth_end": truth[-1], "truth_least": truth[best],
        "truth_start": truth[0], "proxy_end": proxy[-1], "train_end": summary["proxy"][-1], "kind": kind,
        "strict": float(kind == "strict"), "teacher_truth": lab.teacher_golden, "best_step": curve[best]["step"],
        "alarm_step": alarm, "curve": curve,
    }  # fmt: skip


def departure(healthy: list[dict[str, float]], curve: list[dict[str, float]]) -> float | None:
    """The step at which a run's proxy leaves, by 2 residual deviations, the power law of a healthy run's first half;
    None where it never does."""
    half = healthy[1 : max(len(healthy) // 2, 3) + 1]
    x, y = (np.log([point[key] for point in half]) for key in ("step", "proxy"))
    slope, offset = np.polyfit(x, y, 1)
    spread = max(float((y - slope * x - offset).std(ddof=min(2, len(x) - 1))), 1e-6)
    for point in curve[1:]:
        if np.log(point["proxy"]) - slope * np.log(point["step"]) - offset > 2 * spread:
            return float(point["step"])
    return None


def rule(results: Results) -> list[Check]:
    """Fixed answers hack more than several, several more than fresh ones, and repeats more than other prompts."""
    offline = ("offline 1", "offline 5", "5x prompts")
    strict = {arm: int(results.values(arm, "strict").sum()) for arm in results.rows[results.seeds[0]]}
    found = sum(strict[arm] for arm in offline)
    excess = results.difference("offline 1", "oracle teacher")
    below = Interval.of(
        results.values("online teacher", "truth_start") - results.values("online teacher", "teacher_truth")
    )
    rows = results.rows.values()
    leads = [r["offline 1"]["alarm_step"] - r["offline 1"]["best_step"] for r in rows if r["offline 1"]["alarm_step"]]
    false = sum(r["online teacher"]["alarm_step"] is not None for r in rows)
    return [
        results.higher("offline 1", "offline 5"),
        results.higher("offline 5", "online teacher"),
        results.higher("offline 5", "5x prompts"),
        Check(f"strict form (proxy falls, distance to the truth rises) in {found} offline runs: {strict}", found > 0),
        results.lower("offline 1", "online teacher", role="falsifies"),
        Check(f"the strict form appears in no offline run: {strict}", found == 0, "falsifies"),
        Check(f"rise of offline 1 less that with the oracle as teacher is {excess}", excess.positive, "reported"),
        Check(f"the student's start less the teacher's distance to the truth is {below}", below.positive, "reported"),
        Check(
            f"alarm in {len(leads)} offline 1 runs, in the mean {np.mean(leads) if leads else 0:+.0f} steps from the "
            f"best one; false alarms in {false} online runs", bool(leads), "reported",
        ),
    ]  # fmt: skip


RECIPE = Recipe(
    name="teacher_hacking",
    title="On teacher hacking in language-model distillation",
    source="arXiv 2502.02671",
    place=Place("feature", "divergence", "token logits", prefixes="mixed", skill="alignment"),
    signals=("dense logits",),
    data="texts of a random oracle network over 16 symbols",
    claim="On a fixed set of a teacher's answers the distance to the truth falls, then rises; more answers a prompt "
    "and other prompts lessen it, fresh answers remove it",
    falsified="the rise with fresh answers is larger than with fixed ones, or the distance to the teacher never falls "
    "while that to the truth rises in any offline run",
    arms={
        "online teacher": Source("fresh answers of the teacher all the time", answers=0, needs=()),
        "online student": Source("fresh answers of the student, on-policy", answers=0, by_student=True),
        "offline 1": Source("one fixed answer of the teacher to each prompt"),
        "offline 5": Source("five fixed answers to each prompt", answers=5),
        "5x prompts": Source("as many answers as offline 5, each to a prompt of its own", prompts=5.0),
        "oracle teacher": Source(
            "control: offline 1 with the oracle as teacher; what rises is over-fitting", oracle=True
        ),
        "small student": Source("negative setting: offline 1, 48 units, 300 prompts", prompts=3.75, small=True),
    },
    metric="rise",
    seeds=10,
    prepare=OracleTexts,
    arm=run_arm,
    rule=rule,
    presets={"small": Settings()},
    scale=Scale(
        {
            "teacher": ("google-t5/t5-large", Shape(32128, 1024, 24, 16, 4096, kind="encoder-decoder")),
            "student": ("google-t5/t5-base", Shape(32128, 768, 12, 12, 3072, kind="encoder-decoder")),
        },
        devices=8,
        tokens="100,000 oracle texts, 200,000 prompts, 390,625 steps of 32",
    ),
)
