"""The law of the capacity gap: is there a best teacher size for a student, and does it grow with it? (arXiv 2311.07052)

Every student is distilled from every teacher, which has converged, and begins with the same random weights: where it is
pruned out of its teacher, as in the paper, a larger one also means harsher pruning, which is shown for the smallest. On
the robot specialists teach Locomotion-Transformers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from distill.language.models import Shape
from distill.methods.capacity_gap import robot, text
from distill.methods.capacity_gap.law import claims
from distill.methods.framework import Arm, Place, Recipe, Scale, Trial
from distill.methods.power import Power

PILOT = (960, 961, 962)
"""Seeds of the language domain's pilot."""


@dataclass(frozen=True)
class StudentArm(Arm):
    """Students of one size and one start."""

    student: int = 1
    """Place in `Settings.students`."""
    start: Literal["labels", "pruned", "random"] = "random"
    """The weights that it begins with, every teacher's student anew; or random ones and labels alone."""
    by_quality: bool = False
    """From one size of teacher, trained longer and longer, in place of every size."""


def run_arm(trial: Trial, lab: Any, arm: StudentArm) -> dict[str, Any]:
    """One student and one start, from every teacher; or a baseline. `lab` is a domain's, such as `TextGap`."""
    s = trial.settings
    start, width = arm.start, s.students[arm.student]
    if arm.by_quality:
        points = []
        for share in s.quality:
            model = lab.taught(s.quality_teacher, max(round(share * s.teacher_steps), 1))
            student = lab.student(width, start, None, lab.answered(model))
            points.append((lab.loss(model), student["loss"]))
        return {"loss": points[-1][1], "points": points}
    if start == "labels":
        return {**lab.student(width, start, None), "size": lab.size(width)}
    found = [lab.student(width, start, teacher) for teacher in s.teachers]
    return {
        **{key: [student[key] for student in found] for key in found[0]},
        "loss": found[-1]["loss"], "losses": [student["loss"] for student in found], "size": lab.size(width),
        "teachers": [lab.teacher_size(teacher) for teacher in s.teachers],
        "teacher_losses": [lab.teacher_loss(teacher) for teacher in s.teachers], **lab.about(),
    }  # fmt: skip


def arms(kind: str, widths: Sequence[int]) -> dict[str, StudentArm]:
    """Of a domain whose students are a `kind` of model."""
    return {
        **{
            f"labels {w}": StudentArm(f"{kind} of width {w}, labels alone, equal steps", place, "labels")
            for place, w in enumerate(widths)
        },
        **{
            f"random {w}": StudentArm(f"{kind} of width {w}, random weights, every teacher", place)
            for place, w in enumerate(widths)
        },
        "teacher quality": StudentArm(
            "control: one teacher size, trained a quarter, a half and the whole time", by_quality=True
        ),
    }


RECIPE = Recipe(
    name="capacity_gap",
    title="Law of capacity gap: the best teacher for a student's size",
    source="arXiv 2311.07052",
    place=Place("feature", "divergence", "token logits", skill="language modelling"),
    signals=("dense logits",),
    data="characters of the standard library's source and of generated prose; or text files by --data",
    claim="For a student of one size there is a best teacher size, beyond which larger teachers make it worse; it "
    "grows in proportion to the student (2.5 times its size in the paper)",
    falsified="the largest teacher is the best for every student, or the best teacher shrinks as students grow",
    needs="text, and teachers of several sizes that share the student's tokenizer",
    costs="as plain distillation",
    arms=arms("student", text.STUDENTS)
    | {f"pruned {text.STUDENTS[0]}": StudentArm("the smallest, cut out of each teacher as in the paper", 0, "pruned")},
    metric="loss",
    seeds=0,
    prepare=text.TextGap,
    arm=run_arm,
    rule=text.rule,
    claims=claims(text.STUDENTS, "random", Power(0.01, 0.0025, PILOT), Power(1.0, 0.81, PILOT), every=True),
    presets={"small": text.Settings()},
    scale=Scale(
        {
            "teacher": ("meta-llama/Llama-2-7b-hf", Shape(32000, 4096, 32, 32, 11008, 4096, tied=False)),
            "student": ("pruned to 3B", Shape(32000, 3072, 24, 24, 8192, 4096, tied=False)),
        },
        devices=16,
        tokens="126B tokens; 4.2M a step",
    ),
    reads=("texts", "pairs", "labelled", "tagged"),
    variants={
        "robot": {
            "title": "Law of capacity gap: the best specialist for a Locomotion-Transformer's size",
            "place": Place("labelling", "fine-tuning", "text", skill="agent", vertical="robotics"),
            "signals": ("actions",),
            "data": "what the shipped walker does on its randomised training ground",
            "seeds": 5,
            "arms": arms("Transformer", robot.STUDENTS),
            "prepare": robot.RobotGap,
            "rule": robot.rule,
            "claims": claims(robot.STUDENTS, "random", Power(0.005), Power(0.5)),
            "presets": {"small": robot.Settings()},
            "scale": None,
            "reads": (),
        }
    },
)
