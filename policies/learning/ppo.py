"""PPO: Brax's networks, loss, GAE and running statistics around an environment that may live on the host.

The environment is anything with `observe()` and `step(action)` over many worlds (`sim.envs.batched.BatchedEnv`, or its
MJX twin), so the same learner drives the C engine and MJX. With several accelerators the batch is split over them along
the worlds and the parameters are replicated (JAX sharding); results agree with one device up to float32 rounding.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from brax.training.acme import running_statistics
from brax.training.agents.ppo import losses
from brax.training.types import Transition
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from policies.learning import hosts
from policies.learning.networks import NetworkConfig, initial_normalizer, make_networks
from sim.errors import InputError

NetworkParams: Any = losses.PPONetworkParams  # brax's dataclasses, which type checkers cannot see into
Batch: Any = Transition


@dataclass(frozen=True)
class PPOConfig:
    """Hyper-parameters. `worlds` x `unroll` transitions make one iteration."""

    worlds: int = 540
    unroll: int = 24
    epochs: int = 4
    minibatches: int = 6
    discount: float = 0.97
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.002
    learning_rate: float = 1e-3
    warm_learning_rate: float = 1e-4
    """Where a run begins with trained parameters: the full rate would undo them in its first iteration."""
    min_learning_rate: float = 3e-5
    max_learning_rate: float = 1e-3
    target_kl: float = 0.012
    """The learning rate is adapted once per iteration to keep the policy's step near this."""
    max_gradient_norm: float = 1.0
    networks: NetworkConfig = NetworkConfig()

    def __post_init__(self) -> None:
        if self.worlds % self.minibatches and self.worlds >= self.minibatches:
            object.__setattr__(self, "worlds", self.worlds - self.worlds % self.minibatches)
        if min(self.worlds, self.unroll, self.epochs, self.minibatches) < 1 or self.worlds < self.minibatches:
            raise InputError(f"PPO needs at least one world per minibatch, got {self.worlds} over {self.minibatches}")


class LearnerState(NamedTuple):
    """All that learning changes."""

    params: Any
    """brax's `PPONetworkParams`."""
    optimizer: Any
    normalizer: running_statistics.RunningStatisticsState
    key: jax.Array
    learning_rate: jax.Array


class Rollout(NamedTuple):
    """Transitions of one iteration, `[worlds, unroll, ...]`; `last`: the observation after them, `[worlds, 1, ...]`."""

    observation: dict[str, Any]
    raw_action: Any
    log_prob: Any
    reward: Any
    fallen: Any
    truncated: Any
    last: dict[str, Any]


class Learner:
    """Pure PPO updates over `LearnerState`, compiled once."""

    def __init__(self, config: PPOConfig, observation_size: int, privileged_size: int, action_size: int) -> None:
        self.config = config
        self.sizes = (observation_size, privileged_size, action_size)
        self.networks = make_networks(config.networks, *self.sizes)
        self.optimizer = optax.inject_hyperparams(self._optimizer)(learning_rate=config.learning_rate)
        self.mesh = Mesh(np.array(_usable(config)), ("worlds",))
        self.act = jax.jit(self._act)
        self._compiled = jax.jit(self._update, donate_argnums=(0,))

    def _optimizer(self, learning_rate: Any) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(self.config.max_gradient_norm), optax.adam(learning_rate))

    def initial(self, seed: int) -> LearnerState:
        """Fresh parameters."""
        key, policy_key, value_key = jax.random.split(jax.random.PRNGKey(seed), 3)
        params = NetworkParams(
            policy=self.networks.policy_network.init(policy_key), value=self.networks.value_network.init(value_key)
        )
        normalizer = initial_normalizer(*self.sizes[:2])
        rate = jnp.asarray(self.config.learning_rate, jnp.float32)
        return LearnerState(params, self.optimizer.init(params), normalizer, key, rate)

    def _act(self, state: LearnerState, observation: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Sampled action `[N, a]` and its log-probability `[N]` for actor inputs `[N, o]`."""
        dist = self.networks.parametric_action_distribution
        logits = self._policy(state.params.policy, state.normalizer, {"state": observation})
        action = dist.sample_no_postprocessing(logits, key)
        return action, dist.log_prob(logits, action)

    def mean_action(self, state: LearnerState, observation: Any) -> jax.Array:
        """The deterministic action `[N, a]`."""
        logits = self._policy(state.params.policy, state.normalizer, {"state": observation})
        return self.networks.parametric_action_distribution.mode(logits)

    def _policy(self, policy_params: Any, normalizer: Any, observation: dict[str, Any]) -> Any:
        return self.networks.policy_network.apply(normalizer, policy_params, observation)

    def update(self, state: LearnerState, rollout: Rollout) -> tuple[LearnerState, dict[str, jax.Array]]:
        """One iteration of learning on this process's worlds and, with several hosts, on everyone's.

        The state is this process's copy (equal on all), before and after. Also returns the means of the losses.
        """
        everywhere, along = PartitionSpec(), PartitionSpec("worlds")
        return hosts.local(self._compiled(self._placed(state, everywhere), self._placed(rollout, along)))

    def _placed(self, tree: Any, spec: PartitionSpec) -> Any:
        """Arrays of this process as arrays over the whole mesh."""
        sharding = NamedSharding(self.mesh, spec)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)

    def _update(self, state: LearnerState, rollout: Rollout) -> tuple[LearnerState, dict[str, jax.Array]]:
        """One iteration: statistics, then `epochs` passes over shuffled minibatches, then the learning rate."""
        config = self.config
        normalizer = running_statistics.update(state.normalizer, rollout.observation)
        done = jnp.maximum(rollout.fallen, rollout.truncated)
        before = self._policy(state.params.policy, normalizer, rollout.observation)
        data = Batch(
            observation=rollout.observation,
            action=rollout.raw_action,
            reward=rollout.reward,
            discount=1 - done,
            next_observation=rollout.last,
            extras={
                "state_extras": {"truncation": rollout.truncated},
                "policy_extras": {
                    "raw_action": rollout.raw_action,
                    "log_prob": rollout.log_prob,
                    "distribution_params": before,
                },
            },
        )
        loss = partial(
            losses.compute_ppo_loss,
            ppo_network=self.networks,
            entropy_cost=config.entropy,
            discounting=config.discount,
            gae_lambda=config.gae_lambda,
            clipping_epsilon=config.clip,
            normalize_advantage=True,
        )
        grad = jax.value_and_grad(loss, has_aux=True)

        def minibatch(carry: Any, batch: Any) -> Any:
            params, optimizer, key = carry
            key, loss_key = jax.random.split(key)
            (_, metrics), gradient = grad(params, normalizer, batch, loss_key)
            updates, optimizer = self.optimizer.update(gradient, optimizer, params)
            return (optax.apply_updates(params, updates), optimizer, key), metrics

        def epoch(carry: Any, _: Any) -> Any:
            params, optimizer, key = carry
            key, shuffle = jax.random.split(key)
            order = jax.random.permutation(shuffle, config.worlds)
            batches = jax.tree.map(lambda x: x[order].reshape(config.minibatches, -1, *x.shape[1:]), data)
            return jax.lax.scan(minibatch, (params, optimizer, key), batches)

        optimizer = state.optimizer._replace(hyperparams={"learning_rate": state.learning_rate})
        carry = (state.params, optimizer, state.key)
        (params, optimizer, key), metrics = jax.lax.scan(epoch, carry, None, length=config.epochs)
        kl = metrics["kl_mean"][-1].mean()
        rate = jnp.where(kl > 2 * config.target_kl, state.learning_rate / 1.5, state.learning_rate)
        rate = jnp.where(kl < 0.5 * config.target_kl, rate * 1.5, rate)
        rate = jnp.clip(rate, config.min_learning_rate, config.max_learning_rate)
        names = ("policy_loss", "v_loss", "entropy_loss")
        summary = {name: metrics[name].mean() for name in names}
        summary |= {"kl": kl, "learning_rate": rate, "action_std": metrics["policy_dist_mean_std"][-1, -1]}
        return LearnerState(params, optimizer, normalizer, key, rate), summary


def _usable(config: PPOConfig) -> list[Any]:
    """Devices over which the minibatches split evenly: as many as possible, and with several hosts all of them."""
    devices = jax.devices()
    usable = max(n for n in range(1, len(devices) + 1) if config.worlds % (n * config.minibatches) == 0)
    if jax.process_count() > 1 and usable != len(devices):
        raise InputError(
            f"--worlds {config.worlds} must be a multiple of {len(devices) * config.minibatches}: "
            f"{len(devices)} devices x {config.minibatches} minibatches"
        )
    return devices[:usable]


def collect(learner: Learner, state: LearnerState, env: Any, key: jax.Array, totals: dict[str, float]) -> Rollout:
    """Runs the policy for `unroll` steps in every world.

    `totals` gains the sums of reward, falls, each reward term and each metric, for the log.
    """
    unroll = learner.config.unroll
    observation, privileged = env.present
    steps: list[tuple[Any, ...]] = []
    for step_key in jax.random.split(key, unroll):
        action, log_prob = learner.act(state, observation, step_key)
        out = env.step(np.asarray(action))
        steps.append((observation, privileged, action, log_prob, out.reward, out.fallen, out.truncated))
        observation, privileged = out.observation, out.privileged
        settled = out.metrics["settled"]
        sums = {"reward": out.reward.sum(), "falls": out.fallen.sum(), "settled": settled.sum()}
        sums |= {n: (out.metrics[n] * settled).sum() for n in ("velocity_error", "yaw_error")}
        sums |= {f"term/{n}": v.sum() for n, v in out.terms.items()}
        sums |= {n: v.sum() for n, v in out.metrics.items() if n not in ("settled", "velocity_error", "yaw_error")}
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    env.present = (observation, privileged)
    columns = [np.stack([np.asarray(value) for value in column], 1) for column in zip(*steps, strict=True)]
    seen = {"state": columns[0], "privileged_state": columns[1]}
    last = {"state": np.asarray(observation)[:, None], "privileged_state": np.asarray(privileged)[:, None]}
    return Rollout(seen, *columns[2:], last=last)
