"""PPO's parts: advantages against the sum that they are, the clipped surrogate against torch's own densities; and that
the loop learns with them what nobody showed it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

from distill.core.collect import CollectionPlan, Experience, Student
from distill.core.errors import DistillError
from distill.core.loop import Distiller, LoopConfig
from distill.core.objectives.base import StudentOutput, WeightedSum
from distill.core.objectives.policy_gradient import ClippedSurrogate, CriticError, log_likelihood
from distill.core.returns import advantages
from distill.core.signals import Returns, Rollout
from distill.core.teachers import Teachers

torch.set_num_threads(1)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_the_sum(rewards, values, episodes, discount, decay):
    found, first = [], 0
    for rows in episodes:
        r, v = rewards[first : first + rows], np.append(values[first : first + rows], 0.0)
        surprise = r + discount * v[1:] - v[:-1]
        found += [sum((discount * decay) ** k * surprise[t + k] for k in range(rows - t)) for t in range(rows)]
        first += rows
    return np.array(found)


@pytest.mark.parametrize("discount, decay", [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0), (0.0, 0.5)])
def test_advantages_are_their_sum_and_end_with_the_episode(discount, decay):
    rng, episodes = np.random.default_rng(0), (7, 1, 12)
    rewards, values = rng.normal(size=20), rng.normal(size=20)
    found, targets = advantages(rewards, values, episodes, discount, decay)
    np.testing.assert_allclose(found, by_the_sum(rewards, values, episodes, discount, decay), atol=1e-12)
    np.testing.assert_allclose(targets, found + values, atol=1e-12)


def test_advantages_of_everything_are_returns_less_what_was_expected():
    rewards, values = np.array([1.0, 2.0, 3.0]), np.array([5.0, 0.0, 1.0])
    found, targets = advantages(rewards, values, [2, 1], 1.0, 1.0)
    assert targets.tolist() == [3.0, 2.0, 3.0] and found.tolist() == [-2.0, 2.0, 2.0]


@pytest.mark.parametrize("change", [{"episodes": [2]}, {"values": np.zeros(2)}, {"discount": 1.1}, {"decay": -0.1}])
def test_what_is_no_episode_is_refused(change):
    values = {"rewards": np.zeros(3), "values": np.zeros(3), "episodes": [2, 1], "discount": 0.9, "decay": 0.9} | change
    with pytest.raises(DistillError):
        advantages(**values)


def taken(count: int = 40):
    mean, std = normal(count, 3, seed=0), normal(count, 3, seed=1).exp()
    action, before = mean + std * normal(count, 3, seed=2), mean + 0.3 * std * normal(count, 3, seed=3)
    signal = Rollout(action, log_likelihood(action, before, std), normal(count, seed=4))
    return mean, std, before, signal


def test_densities_are_torchs():
    mean, std, _, signal = taken()
    expected = Independent(Normal(mean, std), 1).log_prob(signal.action)
    torch.testing.assert_close(log_likelihood(signal.action, mean, std), expected)


def test_the_surrogate_is_clipped_where_more_would_be_gained():
    mean, std, before, signal = taken()
    now, then = (Independent(Normal(m, std), 1).log_prob(signal.action) for m in (mean, before))
    ratio = (now - then).exp()
    assert (ratio > 1.2).any() and (ratio < 0.8).any()
    bound = torch.where(signal.advantage > 0, ratio.clamp(max=1.2), ratio.clamp(min=0.8))
    loss = ClippedSurrogate(0.2)(StudentOutput(action_mean=mean, action_std=std), signal)
    torch.testing.assert_close(loss, -(bound * signal.advantage).mean())


def test_at_the_policy_that_acted_its_gradient_is_that_of_the_likelihood():
    _, std, before, signal = taken()
    mean = before.clone().requires_grad_()
    ClippedSurrogate()(StudentOutput(action_mean=mean, action_std=std), signal).backward()
    expected = -(signal.action - before) / std.square() * signal.advantage[:, None] / len(before)
    assert mean.grad is not None
    torch.testing.assert_close(mean.grad, expected)


def test_gradients_of_the_surrogate_are_those_of_its_values():
    mean, std, _, signal = taken(6)

    def loss(values: torch.Tensor) -> torch.Tensor:
        return ClippedSurrogate()(StudentOutput(action_mean=values, action_std=std), signal)

    assert torch.autograd.gradcheck(loss, mean.requires_grad_())  # pyright: ignore[reportUnknownMemberType]


def test_the_critic_is_learned_by_squares_and_is_what_the_objective_learns():
    critic = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)).double()
    objective, seen, value = CriticError(critic), normal(9, 4, seed=0), normal(9, seed=1)
    mask = torch.arange(9) < 5
    loss = objective(StudentOutput(), Returns(seen, value), mask)
    torch.testing.assert_close(loss, (critic(seen[:5]) - value[:5]).square().mean() / 2)
    loss.backward()
    assert list(objective.parameters()) == list(critic.parameters())
    assert all(parameter.grad is not None for parameter in critic.parameters())


@pytest.mark.parametrize(
    "change",
    [
        lambda a, p, g: (a, p[:-1], g),
        lambda a, p, g: (a, p, g[:-1]),
        lambda a, p, g: (a[:, 0], p, g),
        lambda a, p, g: (a, p, g * torch.nan),
        lambda a, p, g: (a, p - torch.inf, g),
    ],
)
def test_rollouts_that_fit_nothing_are_refused(change):
    *_, signal = taken()
    with pytest.raises(DistillError):
        Rollout(*change(signal.action, signal.log_likelihood, signal.advantage))


@pytest.mark.parametrize("seen, value", [((3, 2), (4,)), ((3,), (3,)), ((3, 2), (3, 2))])
def test_returns_that_fit_nothing_are_refused(seen, value):
    with pytest.raises(DistillError):
        Returns(torch.zeros(seen), torch.zeros(value))


def test_actions_of_another_size_are_refused():
    mean, std, _, signal = taken()
    with pytest.raises(DistillError, match="actions"):
        ClippedSurrogate()(StudentOutput(action_mean=mean[:, :2], action_std=std[:, :2]), signal)
    with pytest.raises(DistillError, match="action_std"):
        ClippedSurrogate()(StudentOutput(action_mean=mean), signal)
    with pytest.raises(DistillError, match="clip"):
        ClippedSurrogate(0.0)


STD = 0.5


class Reaching(Student):
    """Reaches for a point that lies where a state says; nobody tells it where, but it is paid for being near."""

    name = "reaching"
    WHERE = np.array([[1.0, -1.0], [0.5, 0.5]])

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(2, 2)
        self.critic = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1), nn.Flatten(-2))

    def outputs(self, module, batch):
        mean = module(batch["x"])
        return StudentOutput(action_mean=mean, action_std=torch.full_like(mean, STD))

    def off(self) -> float:
        return float(np.abs(self.module.weight.detach().numpy().T - self.WHERE).max())

    @torch.no_grad()
    def collect(self, student, plan: CollectionPlan) -> Experience:
        rng = np.random.default_rng(plan.seed)
        x = rng.normal(size=(plan.rows, 2)).astype(np.float32)
        mean = self.module(torch.from_numpy(x))
        drawn = mean + STD * torch.from_numpy(rng.normal(size=mean.shape).astype(np.float32))
        reward = -np.square(drawn.numpy() - x @ self.WHERE).sum(1)
        gain, value = advantages(reward, self.critic(torch.from_numpy(x)).numpy().astype(float), [1] * plan.rows)
        fields = {
            "x": x, "drawn": drawn.numpy(), "gain": gain / gain.std(), "value": value,
            "likelihood": log_likelihood(drawn, mean, torch.full_like(mean, STD)).numpy(),
        }  # fmt: skip
        return Experience({name: np.asarray(values, np.float32) for name, values in fields.items()}, [1] * plan.rows)


class Newest:
    def sample(self, shards, rng, counts, held_out=False):
        rows = rng.integers(0, shards.shards[-1].rows, counts["reaching"])
        shard = shards.shards[-1]
        return {name: torch.from_numpy(shards.array(shard, name)[rows]) for name in shard.files}


class Taken:
    kind = Rollout

    def label(self, batch):
        return Rollout(batch["drawn"], batch["likelihood"], batch["gain"])

    def fingerprint(self):
        return "00"


class Worth:
    kind = Returns

    def label(self, batch):
        return Returns(batch["x"], batch["value"])

    def fingerprint(self):
        return "01"


def reached(folder, sign: float = 1.0) -> tuple[float, float]:
    student = Reaching()
    before = student.off()
    parts = {"gain": (sign, ClippedSurrogate(0.5)), "critic": (0.5, CriticError(student.critic))}
    config = LoopConfig(
        rounds=24, first_rows=800, rows=800, first_steps=40, steps=40, batch=256, learning_rate=2e-2, warmup=0,
        learned_rate=2.0, held_out=64, light=True,
    )  # fmt: skip
    teachers = Teachers({"gain": Taken(), "critic": Worth()})
    Distiller(student, WeightedSum(parts), teachers, [student], Newest(), folder, config).run()
    return before, student.off()


def test_the_loop_learns_by_them_what_nobody_showed_it(tmp_path):
    before, after = reached(tmp_path)
    assert after < 0.2 < 1.0 < before


def test_and_unlearns_it_where_losses_are_wanted(tmp_path):
    before, after = reached(tmp_path, sign=-1.0)
    assert after > before


def test_what_the_objective_learns_may_have_a_rate_of_its_own(tmp_path):
    def steps(times: float) -> tuple[float, float]:
        student = Reaching()
        own, critic = ([p.detach().clone() for p in part.parameters()] for part in (student.module, student.critic))
        parts = {"gain": (1.0, ClippedSurrogate()), "critic": (0.5, CriticError(student.critic))}
        config = LoopConfig(
            rounds=0, first_rows=300, rows=300, first_steps=1, batch=256, learning_rate=1e-3, warmup=0,
            weight_decay=0.0, learned_rate=times, held_out=64, light=True,
        )  # fmt: skip
        teachers = Teachers({"gain": Taken(), "critic": Worth()})
        folder = tmp_path / str(times)
        Distiller(student, WeightedSum(parts), teachers, [student], Newest(), folder, config).run()
        moved = [
            max(float((p.detach() - q).abs().max()) for p, q in zip(part.parameters(), before, strict=True))
            for part, before in ((student.module, own), (student.critic, critic))
        ]
        return moved[0], moved[1]

    (own, critic), (same, faster) = steps(1.0), steps(5.0)
    assert own == pytest.approx(same) and faster == pytest.approx(5 * critic, rel=1e-3)
    with pytest.raises(DistillError, match="learned_rate"):
        LoopConfig(learned_rate=0.0)
