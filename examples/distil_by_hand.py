"""Distillation by hand, twice by one loop: a robot's policy from its actions, a language model from its logits.

    python examples/distil_by_hand.py robot
    python examples/distil_by_hand.py language --rounds 8

The loop asks for student, teacher, loss and a collector of what is learned from. First the teacher drives, or writes;
then the student does, and learns what the teacher would have done in its place. Nothing is downloaded.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from distill.core.collect import CollectionPlan, Student
from distill.core.loop import Distiller, LoopConfig
from distill.core.objectives.actions import SquaredError
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.divergences import ForwardKL
from distill.core.schedules import Beta
from distill.core.signals import Actions
from distill.core.tables import RowSampler, experience
from distill.core.teachers import LocalModel
from distill.language.collect import Generated
from distill.language.models import Shape, build, causal
from distill.language.student import ModelStudent, dense
from policies.bundle.reader import Bundle
from policies.bundle.shipped import bundle_file
from sim.envs.batched import BatchedEnv
from sim.tasks.skills import walk


class Walker(Student):
    """One hidden layer from a bundle's observation to its action; also collects what such robots observe."""

    def __init__(self, bundle: Bundle) -> None:
        self.name, self.bundle, size, actions = "walk", bundle, bundle.layout.size, bundle.robot.joints
        self.module = nn.Sequential(nn.BatchNorm1d(size), nn.Linear(size, 128), nn.ELU(), nn.Linear(128, actions))

    def outputs(self, module, batch):
        return StudentOutput(action_mean=module(batch["observation"]))

    @torch.no_grad()
    def collect(self, student, plan):
        """Half a second in each of many worlds, in `plan.beta` of which the teacher drives."""
        env = BatchedEnv(walk(), plan.rows // 25, plan.seed)
        taught = np.random.default_rng(plan.seed).random((env.worlds, 1)) < plan.beta
        seen = [env.observe()[0]]
        while len(seen) < 25:
            own = self.module(torch.from_numpy(seen[-1])).numpy()
            seen.append(env.step(np.where(taught, self.bundle(seen[-1]), own)).observation)
        return experience({"observation": np.concatenate(seen)})


def robot():
    """Student, teacher, loss, collector, rows and optimiser steps of a round."""
    student = Walker(Bundle.load(bundle_file("walk")))
    label = lambda _, batch: Actions(torch.from_numpy(student.bundle(batch["observation"].numpy())))  # noqa: E731
    teacher = LocalModel(nn.Identity(), label, Actions, "walk.onnx")
    return student, teacher, SquaredError(), student, 1500, 300


def language():
    """The same of a Llama of one layer that is to write as one of two layers does: texts of 17 of 64 tokens."""
    teacher, model, read = build(Shape(64, layers=2, tied=False), 1), build(Shape(64, width=32, layers=1)), causal(64)
    teacher.get_output_embeddings().weight.data *= 30  # random weights alone would write noise
    writers = Generated("text", np.arange(64)[:, None], teacher, model, new_tokens=16, vocabulary=64)
    return ModelStudent(model, read), dense(teacher, read), ForwardKL(), writers, 512, 100


def main() -> int:
    """Status 0 where the last student is nearer to its teacher than the first one, in what it does itself; else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=("robot", "language"))
    parser.add_argument("--rounds", type=int, default=4, help="in which the student acts, after the teacher's one")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # small networks: several threads wait for each other
    student, teacher, objective, collector, rows, steps = robot() if options.half == "robot" else language()

    @torch.no_grad()
    def alone(student):
        found = collector.collect(student, CollectionPlan(0, beta=0.0, rows=500, seed=1))
        batch = {name: torch.from_numpy(values) for name, values in found.fields.items()}
        loss = objective(student.outputs(student.module, batch), teacher.label(batch), batch.get("mask"))
        return {"golden": -loss.item()}

    config = LoopConfig(options.rounds, rows, rows, steps, steps, batch=128, beta=Beta(1.0, 0.0))
    with tempfile.TemporaryDirectory() as folder:
        summary = Distiller(student, objective, teacher, [collector], RowSampler(), Path(folder), config, alone).run()
    print("loss where the student acts, round by round:", *(f"{-value:.3f}" for value in summary["golden"]))
    return 0 if summary["golden"][-1] > summary["golden"][0] else 1


if __name__ == "__main__":
    sys.exit(main())
