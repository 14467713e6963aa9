"""The Locomotion-Transformer as a student of the core's loop, able to drive robots while it learns."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from distill.core.collect import Student
from distill.core.objectives.base import StudentOutput
from distill.core.shards import Shards
from policies.bundle.reader import Bundle
from policies.skills.library import Skills
from policies.transformer import Deployed, LocomotionTransformer, TransformerConfig
from sim.course.description import SKILLS
from sim.robots.description import Robot
from sim.robots.gaits import DRIVEN


class TransformerStudent(Student):
    """Learns actions at every step of a window."""

    normalised = False
    """Whether its inputs are scaled already, so that the first experience changes nothing of that."""

    def __init__(
        self,
        config: TransformerConfig,
        seed: int = 0,
        start: LocomotionTransformer | None = None,
        target_step: float | None = None,
    ) -> None:
        """`start` is a model to go on with, of the same configuration: it keeps its normalisers. `target_step` is as in
        `policies.bundle.metadata.Metadata`."""
        torch.manual_seed(seed)
        self.module: LocomotionTransformer = start or LocomotionTransformer(config)  # type: ignore[assignment]
        self.normalised = start is not None
        self.target_step = target_step

    def outputs(self, module: nn.Module, batch: Mapping[str, Tensor]) -> StudentOutput:
        """Actions `[B, T, J + 1]`."""
        return StudentOutput(action_mean=module(batch["frames"], batch["heights"]))

    def begin(self, shards: Shards) -> None:
        """Means and standard deviations of the inputs, from the first experience."""
        if self.normalised:
            return
        for name, normalizer in (("frames", self.module.frames), ("heights", self.module.heights)):
            rows = np.concatenate([np.asarray(shards.array(s, name)[::7], np.float64) for s in shards.shards])
            normalizer.fit(rows.mean(0), rows.std(0))


class TorchBundle:
    """A student that is still learning, where a `policies.bundle.reader.Bundle` is expected."""

    def __init__(
        self,
        model: LocomotionTransformer,
        robot: Robot,
        command_ranges: dict[str, list[float]],
        beside: Path = Path("student"),
        target_step: float | None = None,
    ) -> None:
        """`beside` is the bundle whose paces and response to commands are the student's as well."""
        self.model, self.robot, self._deployed = model, robot, Deployed(model)
        self.layout, self.gait, self.path = model.layout, DRIVEN, beside
        self.metadata = SimpleNamespace(
            robot=robot.name, skill="generalist", command_ranges=command_ranges, target_step=target_step
        )

    @torch.no_grad()
    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Actions `[N, J + 1]` for observations `[N, layout.size]`."""
        device = next(self.model.parameters()).device
        flat = torch.from_numpy(np.ascontiguousarray(observation, np.float32)).to(device)
        return self._deployed(flat).cpu().numpy()


def student_skills(bundle: "TorchBundle | Bundle") -> Skills:
    """`bundle` doing everything, as `policies.skills.library.load_skills` gives it for a file."""
    return Skills("generalist", (bundle,), dict.fromkeys(SKILLS, 0), SKILLS)  # type: ignore[arg-type]
