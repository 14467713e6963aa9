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
from distill.methods.claims import Claim, Difference, Power
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
    """Newest tokens that the networks see, beside the whole prompt."""
    oracle: int = 128
    """Hidden units, as of the other networks."""
    peak: float = 3.0
    """Scale of the oracle's logits."""
    teacher: int = 96
    student: int = 256
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

    prompts: int = 1
    """Times `Settings.prompts`."""
    answers: int = 1
    """A prompt, where they are fixed; 0 draws them anew all the time."""
    oracle: bool = False
    """The oracle takes the teacher's place."""
    needs: tuple[str, ...] = field(default=("online",), kw_only=True)
    """The arm whose curve is a healthy run's; the healthy run is its own."""


def run_arm(trial: Trial, lab: OracleTexts, source: Source) -> dict[str, Any]:
    """Distils the start along one source of answers, token by token with the forward divergence."""
    s = lab.settings
    teacher = lab.oracle if source.oracle else lab.teacher
    model = lab.student()
    model.load_state_dict(lab.start)
    prompts = lab.prompts(s.prompts * source.prompts, 8)
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
        last_learning_rate=s.learning_rate, beta=1.0, sampler=RowSampler(newest=True),
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
        "golden_rise": truth[-1] - truth[best], "rise": rise, "proxy_change": proxy[-1] - proxy[best],
        "truth_end": truth[-1], "truth_least": truth[best], **lab.reverse(model, teacher),
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


PILOT = tuple(range(10))
"""Seeds of the pilot, of an earlier form of this experiment whose networks saw four tokens: the relative rise of five
answers to each of 80 prompts less one to each of 400 spread by 0.009, of distances around 0.27 nats. The other figures
are given the same spread."""
POWER = Power(effect=0.003, spread=0.0025, pilot=PILOT)
"""In nats a token."""
CLAIMS = (
    Claim(
        "hacking", "On one fixed answer a prompt the distance to the truth rises by more than over-fitting alone makes "
        "it rise, which is how it rises with the oracle itself as the teacher",
        Difference("80 x 1", "oracle teacher"), POWER,
    ),
    Claim(
        "diversity", "Of as many fixed answers, five to each of 80 prompts make it rise more than one to each of 400",
        Difference("80 x 5", "400 x 1"), POWER,
    ),
    Claim(
        "fresh", "Five fixed answers a prompt make it rise more than fresh ones",
        Difference("80 x 5", "online"), POWER,
    ),
)  # fmt: skip


def rule(results: Results) -> list[Check]:
    """What decides nothing: the strict form, the detector, and where the student starts."""
    fixed = ("80 x 1", "80 x 5", "400 x 1")
    strict = {arm: int(results.values(arm, "strict").sum()) for arm in fixed}
    below = Interval.of(results.values("online", "truth_start") - results.values("online", "teacher_truth"))
    rows = results.rows.values()
    leads = [r["80 x 1"]["alarm_step"] - r["80 x 1"]["best_step"] for r in rows if r["80 x 1"]["alarm_step"]]
    false = sum(r["online"]["alarm_step"] is not None for r in rows)
    return [
        Check(f"runs in which the proxy falls while the distance to the truth rises: {strict}",
              any(strict.values()), "reported"),
        Check(f"the student's start less the teacher's distance to the truth is {below}", below.positive, "reported"),
        Check(
            f"alarm in {len(leads)} runs of 80 x 1, in the mean {np.mean(leads) if leads else 0:+.0f} steps from the "
            f"best one; false alarms in {false} runs with fresh answers", bool(leads), "reported",
        ),
    ]  # fmt: skip


RECIPE = Recipe(
    name="teacher_hacking",
    title="On teacher hacking in language-model distillation",
    source="arXiv 2502.02671",
    place=Place("feature", "divergence", "token logits", prefixes="mixed", skill="alignment"),
    signals=("dense logits",),
    data="texts of a random oracle network over 16 symbols",
    claim="On a fixed set of a teacher's answers the distance to the truth falls, then rises by more than over-fitting "
    "explains; other prompts lessen it, fresh answers remove it",
    falsified="the rise is smaller than with the oracle as teacher, or larger with other prompts or fresh answers",
    needs="prompts, and a teacher that writes and whose logits are open",
    costs="the teacher writes anew in every round",
    arms={
        "online": Source("fresh answers of the teacher all the time", answers=0, needs=()),
        "80 x 1": Source("one fixed answer of the teacher to each of 80 prompts"),
        "80 x 5": Source("five fixed answers to each of 80 prompts", answers=5),
        "400 x 1": Source("as many answers, each to a prompt of its own", prompts=5),
        "oracle teacher": Source("control: 80 x 1 with the oracle as teacher; what rises is over-fitting", oracle=True),
    },
    metric="golden_rise",
    seeds=0,
    prepare=OracleTexts,
    arm=run_arm,
    rule=rule,
    claims=CLAIMS,
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
