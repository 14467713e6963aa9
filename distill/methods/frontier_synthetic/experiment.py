"""A strong model's answers after thinking, learned without the thoughts (arXiv 2410.18588).

A teacher says of short texts whether they praise or blame: at once, badly, or step by step, well. Students learn
answers of either kind to the same texts. Answers that are made as wrong as the weaker ones, at random and by the weaker
annotator's own confusions, say whether it is their truth that matters.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from distill.core.tables import Epochs
from distill.language.examples import Pair
from distill.language.models import Shape, causal
from distill.language.packing import answers as answer_rows
from distill.language.text import words
from distill.language.writing import answers
from distill.methods.claims import Claim, Difference, Power
from distill.methods.framework import Arm, Place, Recipe, Scale, Trial
from distill.methods.frontier_synthetic.method import target
from distill.methods.frontier_synthetic.opinions import VERDICTS, Opinions, Question
from distill.methods.labs.text_lab import learn_rows, model_of
from distill.methods.statistics import Check, Interval, Results

Kind = Literal["none", "direct", "stripped", "chains", "truth", "flipped", "confused"]
DIRECT, STEPS = "at once", "by steps"
"""How the teacher is asked."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment."""

    words: int = 40
    said: int = 6
    """Words of a text."""
    teacher: Shape = Shape(0, 96, 3, 4)
    student: Shape = Shape(0, 64, 2, 4)
    teacher_questions: int = 1500
    at_once: int = 300
    """Of those, the ones that the teacher learned to answer at once as well: few, so that it does so badly."""
    teacher_steps: int = 800
    weak_steps: int = 100
    """Of the student before it is taught, on true answers to a few questions: it knows the form."""
    questions: int = 1000
    more: int = 2000
    """Questions beside them that one arm has answered as well."""
    labelled: float = 0.1
    test: int = 1000
    steps: int = 1200
    batch: int = 32
    learning_rate: float = 2e-3
    length: int = 32


@dataclass(frozen=True)
class Answers(Arm):
    """Whose answers a student learns."""

    kind: Kind = "stripped"
    more: bool = False


class Lab:
    """One seed's words, a teacher with two ways to answer, and its answers."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.settings, s = trial, trial.settings, trial.settings
        self.world = Opinions(trial.rng(1), s.words, s.said)
        self.tokens = words([" ".join([*self.world.text, DIRECT, STEPS])])
        self.read, rng = causal(self.tokens.size), trial.rng(2)
        sizes = [trial.scaled(n, 12) for n in (s.teacher_questions, s.questions, s.more, s.test)]
        self.taught, self.asked, self.extra, self.test = (self.world.draw(rng, n) for n in sizes)
        held = {str(q) for q in self.test}
        self.asked, self.extra = ([q for q in part if str(q) not in held] for part in (self.asked, self.extra))
        self.teacher = model_of(trial, s.teacher, self.tokens.size, 3)
        both = [Pair(f"{DIRECT} {q}", y) for q, y in map(self.direct, self.taught[: trial.scaled(s.at_once, 4)])]
        both += [Pair(f"{STEPS} {q}", y) for q, y in map(self.steps, self.taught)]
        self.learn(self.teacher, both, s.teacher_steps)
        self.start = model_of(trial, s.student, self.tokens.size, 4)
        self.learn(self.start, [Pair(*self.direct(q)) for q in self.taught[:50]], s.weak_steps)

    def direct(self, question: Question) -> tuple[str, str]:
        """A question and its answer."""
        pair = self.world.pair(question)
        return pair.prompt, pair.completion

    def steps(self, question: Question) -> tuple[str, str]:
        """A question, and its chain of thought with the answer."""
        pair = self.world.pair(question)
        return pair.prompt, f"{pair.rationale} {pair.completion}"

    def learn(self, model: Any, pairs: Sequence[Pair], steps: int) -> None:
        """Learns completions."""
        s, encode = self.settings, self.tokens.encode
        prompts, said = [encode(p.prompt) for p in pairs], [encode(p.completion) for p in pairs]
        rows = answer_rows(prompts, said, s.length, self.tokens.end, self.tokens.pad)
        how = {"batch": s.batch, "learning_rate": s.learning_rate, "sampler": Epochs()}
        learn_rows(self.trial, model, self.read, {"questions": rows}, steps, **how)

    def said(self, model: Any, texts: Sequence[str]) -> tuple[list[str], float]:
        """What a model writes after each text, and the tokens that it takes on the average."""
        prompts = [self.tokens.encode(text) for text in texts]
        ends, pad = [self.tokens.end], self.tokens.pad
        written = answers(
            model, prompts, 2 * self.settings.said + 4, self.tokens.size, ends, pad, 0, temperature=0, batch=256
        )
        return [self.tokens.decode(ids) for ids in written], float(np.mean([len(ids) for ids in written]))

    def annotated(self, questions: Sequence[Question], way: str) -> list[str]:
        """The teacher's answers `is N`: of steps through the JSON that it is asked for, empty where it wrote none."""
        found, _ = self.said(self.teacher, [f"{way} {self.direct(q)[0]}" for q in questions])
        if way == DIRECT:
            return [" ".join(text.split()[-2:]) for text in found]
        rejects: Counter[str] = Counter()
        objects = [json.dumps({"reason": " ".join(t.split()[:-2]), "answer": " ".join(t.split()[-2:])}) for t in found]
        return [target(each, rejects) or "" for each in objects]

    @cached_property
    def answers(self) -> dict[str, list[str]]:
        """Of both ways to the students' questions."""
        return {way: self.annotated(self.asked, way) for way in (DIRECT, STEPS)}

    @cached_property
    def heard(self) -> dict[str, list[str]]:
        """Of both ways to the test questions."""
        return {way: self.annotated(self.test, way) for way in (DIRECT, STEPS)}

    def right(self, said: Sequence[str], questions: Sequence[Question]) -> np.ndarray:
        """Which answers are true, `[N]`."""
        return np.array([text == self.direct(q)[1] for text, q in zip(said, questions, strict=True)], bool)

    def worsened(self, kind: Kind) -> list[str]:
        """The better answers, as often wrong as the weaker ones: at random, or by the weaker annotator's confusions."""
        good, weak, rng = self.answers[STEPS], self.answers[DIRECT], self.trial.rng(5)
        share = self.right(good, self.asked).mean() - self.right(weak, self.asked).mean()
        true = [self.direct(q)[1] for q in self.asked]
        confusions: dict[str, list[str]] = {}
        for text, truth in zip(weak, true, strict=True):
            if text != truth:
                confusions.setdefault(truth, []).append(text)
        candidates = rng.permutation(np.flatnonzero(self.right(good, self.asked)))
        found = list(good)
        for i in candidates[: round(max(share, 0.0) * len(good))]:
            others = [f"is {verdict}" for verdict in VERDICTS if f"is {verdict}" != true[i]]
            found[i] = str(rng.choice(confusions.get(true[i], others) if kind == "confused" else others))
        return found

    def pairs(self, arm: Answers) -> list[Pair]:
        """What a student of an arm learns."""
        if arm.kind == "truth":
            few = self.asked[: max(round(self.settings.labelled * len(self.asked)), 1)]
            return [Pair(*self.direct(q)) for q in few]
        if arm.kind == "chains":
            texts, _ = self.said(self.teacher, [f"{STEPS} {self.direct(q)[0]}" for q in self.asked])
        else:
            texts = self.worsened(arm.kind) if arm.kind in ("flipped", "confused") else self.answers[STEPS]
            texts = self.answers[DIRECT] if arm.kind == "direct" else texts
        questions = [*self.asked, *(self.extra if arm.more else [])]
        texts = [*texts, *(self.annotated(self.extra, STEPS) if arm.more else [])]
        return [Pair(self.direct(q)[0], text) for q, text in zip(questions, texts, strict=True) if text.strip()]


def run_arm(trial: Trial, lab: Lab, arm: Answers) -> dict[str, Any]:
    """One student of one kind of answers, and the teacher's two ways on the same questions."""
    s = lab.settings
    model = model_of(trial, s.student, lab.tokens.size, 4)
    model.load_state_dict(lab.start.state_dict())
    truth = 0.0
    if arm.kind != "none":
        pairs = lab.pairs(arm)
        true = {q: y for q, y in map(lab.direct, [*lab.asked, *lab.extra])}
        truth = float(np.mean([p.completion.split()[-2:] == true[p.prompt].split() for p in pairs]))
        lab.learn(model, pairs, s.steps)
    trial.keep(model, tokens=lab.tokens)
    said, length = lab.said(model, [lab.direct(q)[0] for q in lab.test])
    last = [" ".join(text.split()[-2:]) for text in said]
    teacher = lab.heard
    agreed = float(np.mean([a == b for a, b in zip(last, teacher[STEPS], strict=True)]))
    return {
        "accuracy": float(lab.right(last, lab.test).mean()), "agreement": agreed, "tokens": length,
        "targets": truth, **{f"teacher {w}": float(lab.right(teacher[w], lab.test).mean()) for w in teacher},
    }  # fmt: skip


def rule(results: Results) -> list[Check]:
    """Better answers teach more at equal tokens; the teacher must have a gap between its two ways."""
    ways = [results.values("stripped", f"teacher {way}") for way in (STEPS, DIRECT)]
    gap = Interval.of(ways[0] - ways[1])
    return [
        Check(f"the teacher by steps less at once is {gap}, above 0.1", gap.low > 0.1, "precondition"),
        results.higher("stripped", "flipped at random", role="reported"),
        results.higher("flipped at random", "flipped by confusions", role="reported"),
        results.higher("chains", "stripped", role="reported"),
        results.higher("three times the questions", "stripped", role="reported"),
        results.higher("stripped", "true labels of a tenth", role="reported"),
    ]


PILOT = (930, 931, 932)
"""There stripped less direct was 0.400, 0.334 and 0.400, less flipped by confusions 0.446, 0.440 and 0.534. Five seeds
would do by these spreads; ten are run, since three seeds say little of them."""
RECIPE = Recipe(
    name="frontier_synthetic",
    title="A strong model's answers after thinking, without the thoughts",
    source="arXiv 2410.18588",
    place=Place(
        "labelling", "fine-tuning", "text", prefixes="teacher", granularity="sequence", same_tokenizer=False,
        skill="reasoning",
    ),
    signals=("text",),
    data="short texts that praise or blame, generated; a trained teacher judges them at once or by steps",
    claim="A student that learns the answers a teacher reaches step by step, without the steps, is right more often "
    "than one that learns the answers the teacher gives at once, and writes no more",
    falsified="it is right less often",
    needs="prompts, and what a teacher wrote to each: a JSON object with reason and answer",
    costs="the teacher's thoughts, once a row; nothing more at test time",
    arms={
        "start": Answers("the student before", "none"),
        "direct": Answers("control: answers given at once", "direct"),
        "stripped": Answers("the method: answers after steps, without them"),
        "chains": Answers("steps and answers, which the student writes as well", "chains"),
        "true labels of a tenth": Answers("no teacher", "truth"),
        "three times the questions": Answers("the method, with more questions", more=True),
        "flipped at random": Answers("control: answers after steps, made as wrong as those at once", "flipped"),
        "flipped by confusions": Answers("control: made wrong as those at once are", "confused"),
    },
    metric="accuracy",
    seeds=10,
    prepare=Lab,
    arm=run_arm,
    rule=rule,
    claims=(
        Claim(
            "better answers", "A student that learns the answers a teacher reaches step by step is right more often "
            "than one that learns those it gives at once",
            Difference("stripped", "direct"), Power(0.1, 0.0381, PILOT),
        ),
        Claim(
            "truth", "It is their truth: made as wrong as the others, by the weaker annotator's confusions, they "
            "teach less",
            Difference("stripped", "flipped by confusions"), Power(0.1, 0.0526, PILOT), role="mechanism",
        ),
    ),
    presets={"small": Settings()},
    scale=Scale(
        {
            "teacher": (
                "meta-llama/Llama-3.1-405B-Instruct",
                Shape(128256, 16384, 126, 128, 53248, 131072, tied=False, key_value_heads=8),
            ),
            "student": (
                "meta-llama/Llama-3.1-8B-Instruct",
                Shape(128256, 4096, 32, 32, 14336, 131072, tied=False, key_value_heads=8),
            ),
        },
        devices=16,
        tokens="1,000 to 10,000 inputs a task, one answer of at most 128 tokens each",
    ),
)  # fmt: skip
