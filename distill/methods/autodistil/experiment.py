"""AutoDistil: students of many sizes learn together, and one is chosen without training (arXiv 2201.12507).

A teacher guesses hidden characters. Two super-nets, one of narrow and one of wide students, share the updates that a
single one for all widths has. Twelve sizes are then looked at: what each loses of the teacher's relations as it is cut
out, and how well it guesses after a short training of its own.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from distill.core.objectives.divergences import CrossEntropy
from distill.core.tables import Epochs, FixedDomain
from distill.language.data import sources
from distill.language.evaluate import over
from distill.language.masking import masked_rows
from distill.language.models import Shape, build, classifier
from distill.language.student import ModelStudent, Next
from distill.language.supernet import Size, Space, SuperNet, extract
from distill.language.text import SPECIAL, UNKNOWN, characters
from distill.methods.autodistil.method import One, Sandwich, parts, relation_loss, scored
from distill.methods.claims import Claim, Power
from distill.methods.framework import Arm, Place, Recipe, Scale, Trial
from distill.methods.statistics import Check, Interval, Results

NARROW = Space((2, 3, 4), (32, 48), (2.0, 3.0, 4.0), (2, 4, 6))
WIDE = Space((2, 3, 4), (64, 80, 96), (2.0, 3.0, 4.0), (2, 4, 6))
WHOLE = Space(NARROW.layers, (*NARROW.width, *WIDE.width), NARROW.ratio, NARROW.heads)
SMALL = (Size(2, 32, 2.0, 2), Size(2, 48, 3.0, 4), Size(3, 32, 4.0, 6), Size(3, 48, 2.0, 2), Size(4, 32, 3.0, 4),
         Size(4, 48, 4.0, 6))  # fmt: skip
LARGE = (Size(2, 64, 2.0, 2), Size(2, 96, 4.0, 6), Size(3, 80, 3.0, 4), Size(3, 96, 2.0, 2), Size(4, 64, 3.0, 6),
         Size(4, 96, 4.0, 6))  # fmt: skip
PILOT = (910, 911)
"""Their figures: -0.177 and -0.249, so that a tenth is what is worth finding."""
CAP = 0.5
"""Of the largest student's parameters: the limit that a student is chosen under."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment."""

    teacher: Shape = Shape(0, 96, 4, 6, 384, 64, kind="masked")
    characters: int = 400_000
    length: int = 48
    held_out: int = 128
    """Rows that nobody learns from."""
    teacher_steps: int = 1500
    updates: int = 400
    """Of all super-nets of an arm together; a student of its own has as many."""
    tuning_steps: int = 100
    batch: int = 32
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class Searched(Arm):
    """Which super-nets learn, and how."""

    nets: Literal["one", "two", "none"] = "two"
    ends: bool = True
    """Whether the smallest and the largest learn at every step, beside two random sizes; else four random ones."""


class Lab:
    """One seed's text and teacher."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.settings, s = trial, trial.settings, trial.settings
        size = max(trial.scaled(s.characters), 4 * s.held_out * s.length // 2)
        text = "".join(sources({"prose": size // 2, "rules": size // 2}, trial.number(0)).values())
        self.tokens = characters([text])
        ids = np.array(self.tokens.encode(text))
        rows = ids[: len(ids) // s.length * s.length].reshape(-1, s.length)
        rows = trial.rng(1).permutation(rows)
        self.held_out, self.rows = ({"tokens": part, "mask": np.ones(part.shape, bool)}
                                    for part in (rows[: s.held_out], rows[s.held_out :]))  # fmt: skip
        self.guesses = self._hidden(self.held_out["tokens"], 2)
        self.teacher = build(Shape(**{**vars(s.teacher), "vocabulary": self.tokens.size}), trial.number(3))
        self.learn(self.teacher, s.teacher_steps, 4)
        self.teacher.requires_grad_(False)

    def _hidden(self, tokens: np.ndarray, stream: int) -> Any:
        return masked_rows(tokens, SPECIAL.index(UNKNOWN), len(SPECIAL), self.trial.rng(stream))

    def learn(self, model: Any, steps: int, stream: int) -> None:
        """Guesses hidden characters."""
        student = ModelStudent(model, classifier(self.tokens.pad))
        rows = self._hidden(self.rows["tokens"], stream)
        how = {"batch": self.settings.batch, "learning_rate": self.settings.learning_rate, "sampler": Epochs()}
        self.trial.fit(student, CrossEntropy(), Next("target"), [FixedDomain("text", rows)], steps=steps, **how)

    def guessing(self, model: Any) -> float:
        """Nats of a hidden character of held-out text."""
        read = classifier(self.tokens.pad)

        def each(batch: Any) -> Any:
            said = read(model, batch)[batch["mask"]].log_softmax(-1)
            return -said.gather(-1, batch["target"][batch["mask"]][:, None])[:, 0]

        return float(over(model, self.guesses, each).mean())

    def supernet(self, space: Space, updates: int, ends: bool = True) -> SuperNet:
        """After so many updates, each with four sizes."""
        net = SuperNet.of(self.teacher, space)
        _, objective, giver, table = parts(self.teacher, net, self.rows)
        learner = Sandwich(net, self.trial.number(5), ends, 2 if ends else 4)
        self.relate(learner, objective, giver, table, updates)
        return net.eval()

    def relate(self, learner: Any, objective: Any, giver: Any, table: Any, steps: int) -> None:
        """Learns relations."""
        how = {"batch": self.settings.batch, "learning_rate": self.settings.learning_rate, "sampler": Epochs()}
        self.trial.fit(learner, objective, giver, table, steps=steps, **how)

    @cached_property
    def alone(self) -> dict[Size, Any]:
        """The smallest sizes of both spaces, each trained by itself as long as the super-nets together."""
        found: dict[Size, Any] = {}
        for size in (SMALL[0], LARGE[0]):
            found[size] = extract(self.teacher, size)
            _, objective, giver, table = parts(self.teacher, SuperNet.of(self.teacher, NARROW), self.rows)
            self.relate(One(found[size]), objective, giver, table, self.settings.updates)
        return found


def ranks(values: np.ndarray) -> np.ndarray:
    """Of each value, from 0; equal ones share theirs."""
    return np.array([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])


def run_arm(trial: Trial, lab: Lab, arm: Searched) -> dict[str, Any]:
    """Losses of the sizes as they are cut out; what a choice by them is worth."""
    if arm.nets == "none":
        lost = {size: relation_loss(model, lab.teacher, lab.held_out) for size, model in lab.alone.items()}
        trial.keep(lab.alone[SMALL[0]], tokens=lab.tokens)
        return {"small": lost[SMALL[0]], "smallest": lost[SMALL[0]], "large": lost[LARGE[0]]}
    s = lab.settings
    if arm.nets == "two":
        half = s.updates // 2
        nets = [lab.supernet(NARROW, half, arm.ends), lab.supernet(WIDE, s.updates - half, arm.ends)]
    else:
        nets = [lab.supernet(WHOLE, s.updates, arm.ends)] * 2
    both = list(zip(nets, (SMALL, LARGE), strict=True))
    found = [one for net, sizes in both for one in scored(net, lab.teacher, lab.held_out, sizes)]
    loss = np.array([one.loss for one in found])
    measures = {"small": loss[: len(SMALL)].mean(), "large": loss[len(SMALL) :].mean(), "smallest": loss[0],
                "largest": loss[-1]}  # fmt: skip
    if arm.nets == "one" and not arm.ends:
        trial.keep(nets[0].extract(SMALL[0]), tokens=lab.tokens)
        return measures
    nats = []
    for net, sizes in both:
        for size in sizes:
            model = net.extract(size)
            lab.learn(model, s.tuning_steps, 6)
            nats.append(lab.guessing(model))
            if size == SMALL[0]:
                trial.keep(model, tokens=lab.tokens)
    nats, count = np.array(nats), np.array([one.cost.parameters for one in found])
    within = np.flatnonzero(count <= CAP * count.max())
    best = nats[within].min()
    by_loss, by_count = within[loss[within].argmin()], within[count[within].argmax()]
    rho = float(np.corrcoef(ranks(loss), ranks(nats))[0, 1])
    return {
        **measures, "rho": rho if np.isfinite(rho) else 0.0, "rho of parameters": float(
            np.corrcoef(ranks(-count.astype(float)), ranks(nats))[0, 1]),
        "regret": nats[by_loss] / best - 1, "regret by parameters": nats[by_count] / best - 1,
        "nats": nats.mean(), "teacher nats": lab.guessing(lab.teacher),
    }  # fmt: skip


def saved(results: Results) -> np.ndarray:
    """`[seeds]`: by which share two super-nets lower the small students' loss against one."""
    return 1 - results.values("two spaces", "small") / results.values("one space", "small")


def rule(results: Results) -> list[Check]:
    """Two super-nets against one at equal updates decide; what the choice is worth, and the sandwich, beside it."""
    two, one = "two spaces", "one space"
    rho, regret = results.mean(two, "rho"), results.mean(two, "regret")
    rival = Interval.of(results.values(two, "regret by parameters") - results.values(two, "regret"))
    return [
        Check(f"rank correlation of loss and nats after a short training: {rho}, above 0.6", rho.low > 0.6, "reported"),
        Check(f"regret of the choice by loss: {regret}, under 0.02", regret.high < 0.02, "reported"),
        Check(f"regret by parameters alone less by loss: {rival}", rival.positive, "reported"),
        results.lower(one, "random sizes", "smallest", role="reported"),
        results.lower(one, "random sizes", "largest", role="reported"),
        results.lower("each alone", two, "smallest", role="reported"),
    ]


RECIPE = Recipe(
    name="autodistil",
    title="AutoDistil: a super-net of students, and one of them chosen without training",
    source="arXiv 2201.12507",
    place=Place("feature", "similarity", "hidden states", granularity="token", skill="understanding"),
    signals=("hidden states",),
    data="characters of prose by a grammar and of text with rules, generated; no labels",
    claim="At equal updates, small students that are cut out of a super-net of narrow ones keep more of the teacher's "
    "relations than those that are cut out of a super-net of all widths",
    falsified="one super-net for all serves them better",
    needs="a BERT-like masked language model, and text without labels",
    costs="every step trains four sizes; each size of the space is then measured once",
    arms={
        "two spaces": Searched("the method: a super-net of narrow and one of wide students, half the updates each"),
        "one space": Searched("control: one super-net, all updates", "one"),
        "random sizes": Searched("one super-net, four random sizes a step", "one", ends=False),
        "each alone": Searched("bound: two of the sizes, trained by themselves, all updates each", "none"),
    },
    metric="small",
    seeds=0,
    prepare=Lab,
    arm=run_arm,
    rule=rule,
    claims=(
        Claim(
            "spaces", "At equal updates small students keep more of the teacher's relations when they are cut out of "
            "a super-net of narrow ones than out of one of all widths",
            saved, Power(0.1, 0.0505, PILOT), unit="share by which the narrow super-net lowers the relation loss",
        ),
    ),
    presets={"small": Settings()},
    scale=Scale(
        {
            "teacher": ("google-bert/bert-base-uncased", Shape(30522, 768, 12, 12, 3072, kind="masked")),
            "super-net, base": ("12/640/4/12, cut out of it", Shape(30522, 640, 12, 10, 2560, kind="masked")),
            "super-net, small": ("12/352/4/10, cut out of it", Shape(30522, 352, 12, 11, 1408, kind="masked")),
            "super-net, tiny": ("7/224/3.5/10, cut out of it", Shape(30522, 224, 7, 7, 784, kind="masked")),
        },
        devices=16,
        tokens="Wikipedia and BookCorpus in rows of 128, ten passes for each of three super-nets",
    ),
    command="encoder",
    call="distill.methods.autodistil.method.distil",
)  # fmt: skip
