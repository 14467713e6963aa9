"""Fine-tuning of a Locomotion-Transformer by PPO on whole courses, with the course's score as its return.

The student drives alone, through the navigator that will drive it, with a little noise on its actions. What it is paid
for is the official score with a clock that never stands still: seconds of the planned way less the seconds that they
took, and a price for each obstacle that fails, so that the return of a run is its score but for a factor (arXiv
2305.14654 counts 0.01 a second and 0.1 an obstacle, which is 10 s). A weight holds it near its teachers' actions.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from distill.core.collect import CollectionPlan, Experience, Student
from distill.core.episodes import EpisodeRecorder
from distill.core.objectives.actions import GaussianKL
from distill.core.objectives.base import Objective, OwnMasks, StudentOutput
from distill.core.objectives.policy_gradient import ClippedSurrogate, CriticError, log_likelihood
from distill.core.returns import advantages
from distill.core.shards import Shards
from distill.core.signals import Actions, Returns, Rollout
from distill.core.teachers import Batch, Teachers
from distill.locomotion.course import CourseCollector, Robots, as_bundle
from distill.locomotion.drive import RecordingDriver
from distill.locomotion.experience import Windows
from distill.locomotion.options import Options
from distill.locomotion.student import TorchBundle, TransformerStudent, student_skills
from policies.evaluation.course_run import CourseWorlds
from policies.evaluation.outcome import CourseRun
from policies.skills.library import Skills, paces_of
from policies.transformer import Deployed, LocomotionTransformer
from sim.course.description import Course
from sim.envs.worlds import world_seeds

DISCOUNT, DECAY = 0.99, 0.8
"""Of a control step: what happens two seconds later counts 0.37 as much; lambda of the advantages. With the usual 0.95
the noise of later steps left half of what can be told of an action in 87,000 steps."""
COMMON, LARGEST = 0.68, 9.0
"""Share of advantages within one unit of the middle, and units at which they are cut off: a fall would outweigh
thousands of steps."""
CLIP = 0.3
"""Of the likelihood ratio: actions are drawn narrowly, so a small step of the mean is a large one of the ratio."""
CRITIC = 0.5
"""Weight of the critic's error beside the surrogate, as is usual."""
HELD = 50
"""Control steps on the end table after which a run teaches nothing more."""
ROWS_PER_RUN = 740
"""Control steps of an average run up to there."""
FIELDS = ("drawn", "likelihood", "advantage", "value", "outlook", "features", "taught")
"""Of the experience, beside those of `experience.Windows`."""
OUTLOOK = 3
"""Numbers that the critic is told beside what the student sees: planned seconds left, in tens; the share of the motors'
torque that there is; whether the robot is another than described."""


class Critic(nn.Module):
    """What is still to come of a step, s, from what its student sees (newest frame and terrain) and an outlook."""

    def __init__(self, model: LocomotionTransformer, width: int = 128) -> None:
        super().__init__()
        for name in ("frames", "heights"):
            known = getattr(model, name)
            self.register_buffer(f"{name}_mean", known.mean.detach().clone())
            self.register_buffer(f"{name}_std", known.std.detach().clone())
        self.sizes = [model.layout.frame_size, model.layout.height_size, OUTLOOK]
        self.layers = nn.Sequential(
            nn.Linear(sum(self.sizes), width), nn.ELU(), nn.Linear(width, width), nn.ELU(), nn.Linear(width, 1)
        )
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]

    def forward(self, seen: Tensor) -> Tensor:
        """Values `[...]` of `[..., frame + heights + OUTLOOK]`."""
        frame, heights, outlook = seen.split(self.sizes, -1)
        frame = (frame - self.get_buffer("frames_mean")) / self.get_buffer("frames_std")
        heights = (heights - self.get_buffer("heights_mean")) / self.get_buffer("heights_std")
        return self.layers(torch.cat([frame.clamp(-5, 5), heights.clamp(-5, 5), outlook], -1))[..., 0]


class ExploringStudent(TransformerStudent):
    """Says how widely its actions are drawn, and gives the newest step's alone: they must be as on the robot."""

    def __init__(self, student: TransformerStudent, std: float, head: bool) -> None:
        """`head`: nothing but the last layer is trained."""
        super().__init__(student.module.config, start=student.module, target_step=student.target_step)
        self.std, self.head = std, head
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(not head or name.startswith("head."))

    def outputs(self, module: nn.Module, batch: Mapping[str, Tensor]) -> StudentOutput:
        """Actions `[B, 1, J + 1]` and their standard deviation."""
        model = cast("LocomotionTransformer", module)  # accelerate leaves one process's as it is
        if self.head:
            mean = model.head(batch["features"])
        else:
            flat = torch.cat([batch["frames"].flip(1).flatten(1), batch["heights"][:, -1]], 1)
            mean = Deployed(model)(flat)[:, None]
        return StudentOutput(action_mean=mean, action_std=torch.full_like(mean, self.std))


class ExploringBundle(TorchBundle):
    """Draws actions around those of a student, and remembers them."""

    def __init__(self, bundle: TorchBundle, std: float, seed: int) -> None:
        ranges = bundle.metadata.command_ranges
        super().__init__(bundle.model, bundle.robot, ranges, bundle.path, bundle.metadata.target_step)
        self.std, self.rng = std, np.random.default_rng([seed, 0xE5])
        self.mean = self.drawn = self.features = np.zeros((0, 0), np.float32)

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Actions `[N, J + 1]`, drawn."""
        hook = self.model.head.register_forward_pre_hook(self._see)
        try:
            self.mean = super().__call__(observation)
        finally:
            hook.remove()
        noise = self.rng.standard_normal(self.mean.shape, np.float32)
        self.drawn = self.mean + np.float32(self.std) * noise
        return self.drawn

    def _see(self, head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.features = inputs[0].cpu().numpy()


class ExploringDriver(RecordingDriver):
    """Records what was drawn and how likely that was."""

    def __init__(self, teachers: Skills, student: ExploringBundle, worlds: int, seed: int) -> None:
        super().__init__(teachers, student, worlds, beta=0.0, seed=seed)
        self.exploring = student

    def also(self) -> dict[str, np.ndarray]:
        """See `RecordingDriver.also`."""
        drawn, mean = (torch.from_numpy(values) for values in (self.exploring.drawn, self.exploring.mean))
        likelihood = log_likelihood(drawn, mean, torch.full_like(mean, self.exploring.std))
        return {
            "drawn": self.exploring.drawn, "likelihood": likelihood.numpy(),
            "features": np.array(self.exploring.features),
        }  # fmt: skip


class Payment:
    """What each control step of `worlds` was worth, s `[worlds]`."""

    def __init__(self, worlds: CourseWorlds, failure: float) -> None:
        """`failure` is what an obstacle costs that is not completed, s."""
        path = worlds.navigators[0].path
        self.worlds, self.failure = worlds, failure
        self.places, self.times = path.s, path.time
        self.planned, self.charged = self._planned(), np.zeros(len(worlds.navigators))
        self.over = np.zeros(len(worlds.navigators), bool)

    def _planned(self) -> np.ndarray:
        return np.interp([navigator.s for navigator in self.worlds.navigators], self.places, self.times)

    @property
    def left(self) -> np.ndarray:
        """Planned seconds to the end, `[worlds]`."""
        return self.times[-1] - self.planned

    def step(self) -> np.ndarray:
        """Once after every step of the worlds."""
        worlds, before = self.worlds, self.planned
        self.planned = self._planned()
        on_the_way = np.array([navigator.state != "holding" for navigator in worlds.navigators])
        paid = self.planned - before - worlds.dt * on_the_way
        failed = worlds.robots.touched_boards.sum(1).astype(float)
        ended = ~worlds.running & ~self.over
        for i in np.flatnonzero(ended).tolist():
            obstacles = worlds.scorers[i].result().obstacles.values()
            failed[i] = max(failed[i], sum(not obstacle.completed for obstacle in obstacles))
        self.over |= ended
        charged = np.maximum(failed, self.charged)
        paid -= self.failure * (charged - self.charged)
        self.charged = charged
        return paid


class Rollouts(Windows):
    """Steps of the newest round, each with what came of it."""

    forgets = True
    """See `distill.core.collect.Sampler`."""

    def __init__(self, context: int) -> None:
        super().__init__(context, last_only=True, also=FIELDS, newest=True)

    def sample(
        self, shards: Shards, rng: np.random.Generator, counts: Mapping[str, int], held_out: bool = False
    ) -> dict[str, Tensor]:
        """As `Windows.sample`; `mask` `[B, 3, 1]` says what teaches: the surrogate, the critic, the teachers."""
        batch = super().sample(shards, rng, counts, held_out)
        taught = batch.pop("taught")[:, None] > 0
        return {**batch, "mask": torch.cat([taught, torch.ones_like(taught), taught], 1)}


class DrawnActions:
    """A teacher for `ClippedSurrogate`: what the student did itself, and what came of it."""

    kind = Rollout

    def label(self, batch: Batch) -> Rollout:
        """The recorded rollout."""
        return Rollout(batch["drawn"], batch["likelihood"], batch["advantage"])

    def fingerprint(self) -> str:
        """Nothing but the experience itself decides the labels."""
        return "07"


class SeenReturns:
    """A teacher for `CriticError`: what things turned out to be worth."""

    kind = Returns

    def label(self, batch: Batch) -> Returns:
        """The recorded returns."""
        return Returns(
            torch.cat([batch["frames"][:, -1:], batch["heights"][:, -1:], batch["outlook"]], -1), batch["value"]
        )

    def fingerprint(self) -> str:
        """As `DrawnActions.fingerprint`."""
        return "08"


class SpecialistsAround:
    """A teacher for `GaussianKL`: the specialists' actions, as widely drawn as the student's."""

    kind = Actions

    def __init__(self, std: float) -> None:
        self.std = std

    def label(self, batch: Batch) -> Actions:
        """The recorded `action` of the newest step."""
        mean = batch["action"]
        return Actions(mean, torch.full_like(mean, self.std))

    def fingerprint(self) -> str:
        """As `DrawnActions.fingerprint`."""
        return f"09{self.std.hex().encode().hex()}"


class FineTuning(CourseCollector):
    """Runs of courses, driven by the student alone, with what came of every step, and how the loop learns from them."""

    def __init__(
        self,
        student: TransformerStudent,
        teachers: Skills,
        courses: Sequence[Course],
        robots: Sequence[Robots],
        options: Options,
    ) -> None:
        super().__init__(teachers, courses, robots, options.threads, rows_per_run=ROWS_PER_RUN)
        self.options, std = options, options.exploration
        self.student = ExploringStudent(student, std, options.tuned == "head")
        self.critic = Critic(student.module)
        parts: dict[str, tuple[float, Objective]] = {
            "gain": (1.0, ClippedSurrogate(CLIP)), "critic": (CRITIC, CriticError(self.critic)),
            "teachers": (options.near_teachers, GaussianKL()),
        }  # fmt: skip
        self.objective = OwnMasks(parts, tuple(parts))
        self.teacher = Teachers({"gain": DrawnActions(), "critic": SeenReturns(), "teachers": SpecialistsAround(std)})
        self.sampler = Rollouts(student.module.config.context)

    def _experience(
        self, rows: dict[str, np.ndarray], episodes: list[int], results: list[CourseRun], plan: CollectionPlan
    ) -> Experience:
        """Measured are the share of runs with all obstacles, their time, and how far actions are from the teachers'.
        The first round teaches the critic alone: what it says is worth nothing before.
        """
        reward, expected = rows.pop("reward"), self._expected(rows)
        decay = DECAY if plan.round else 1.0  # a critic that knows nothing is taught by what came of it, not by itself
        gain, value = advantages(reward.astype(float), expected, episodes, DISCOUNT, decay)
        explained = 1.0 - float(np.var(value - expected) / max(np.var(value), 1e-12))
        rows["advantage"] = scaled(gain).astype(np.float32)
        rows["value"] = value.astype(np.float32)
        rows["taught"] = np.full(len(value), plan.round > 0)
        apart = float(np.square(rows.pop("mean") - rows["action"]).sum(1).mean())
        clean = [run for run in results if _clean(run)]
        measured = {
            "clean": len(clean) / len(results), "return_s": float(reward.sum() / len(results)),
            "apart": apart, "explained": explained,
        }  # fmt: skip
        if clean:
            measured["time_s_median"] = float(np.median([run.result.time_s for run in clean]))
        return Experience(rows, episodes, measured)

    def _run(
        self, student: Student | None, plan: CollectionPlan, course: Course, kind: Robots, runs: int, seed: int
    ) -> tuple[EpisodeRecorder, list[CourseRun]]:
        bundle = as_bundle(self.student, self.teachers, self.options.start_from)
        assert bundle is not None
        driver = ExploringDriver(self.teachers, ExploringBundle(bundle, self.options.exploration, seed), runs, seed)
        worlds = CourseWorlds(
            course, self.teachers, world_seeds(seed, runs), randomize=kind.randomize, time_limit=self.longest,
            torque_limit=kind.torque_limit, paces=paces_of(student_skills(bundle), kind.torque_limit),
            threads=self.threads, policy=driver,
        )  # fmt: skip
        payment, held = Payment(worlds, self.options.failure_seconds), np.zeros(runs, int)
        strength = worlds.robots.torque_limit / self.teachers.robot.peak_torque
        driver.alive = np.ones(runs, bool)
        while driver.alive.any():
            left = np.minimum(payment.left / 10.0, 5.0)
            worlds.step()
            outlook = np.stack([left, np.full(runs, strength), np.full(runs, float(kind.randomize))], 1)
            driver.recorder.came_of_it(
                reward=payment.step().astype(np.float32), outlook=outlook.astype(np.float32),
                mean=driver.exploring.mean,
            )  # fmt: skip
            held += np.array([navigator.state == "holding" for navigator in worlds.navigators])
            driver.alive = driver.alive & worlds.running & (held < HELD)
        return driver.recorder, worlds.results()

    @torch.no_grad()
    def _expected(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        seen = np.concatenate([rows["frames"], rows["heights"].astype(np.float32), rows["outlook"]], 1)
        device = next(self.critic.parameters()).device
        return self.critic(torch.from_numpy(seen).to(device)).double().cpu().numpy()


def scaled(gain: np.ndarray) -> np.ndarray:
    """Advantages `[rows]` around 0, of standard deviation 1, without the largest."""
    around = gain - np.median(gain)
    unit = max(float(np.quantile(np.abs(around), COMMON)), 1e-8)
    cut = np.clip(around / unit, -LARGEST, LARGEST)
    cut = cut - cut.mean()
    return cut / max(float(cut.std()), 1e-8)


def _clean(run: CourseRun) -> bool:
    """Whether a run that need not have held the end table for as long as is asked has all other obstacles."""
    *others, _ = run.result.obstacles.values()
    return run.result.end_table_s > 0 and all(obstacle.completed for obstacle in others)
