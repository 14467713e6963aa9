"""Actor and critic of the specialists: Brax's PPO networks with a separate, privileged critic input."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from brax.training.acme import running_statistics, specs
from brax.training.agents.ppo import networks as ppo_networks
from flax import linen

ACTIVATIONS = {"elu": linen.elu, "swish": linen.swish, "relu": linen.relu, "tanh": linen.tanh}


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the actor and critic MLPs."""

    hidden: tuple[int, ...] = (256, 128, 128)
    critic_hidden: tuple[int, ...] = (256, 128, 128)
    activation: str = "elu"
    initial_std: float = 0.4
    """Standard deviation of the first actions, action units."""


def make_networks(
    config: NetworkConfig, observation_size: int, privileged_size: int, action_size: int
) -> ppo_networks.PPONetworks:
    """Networks that normalise their inputs `{"state": [..., o], "privileged_state": [..., p]}` themselves."""
    sizes = {"state": (observation_size,), "privileged_state": (privileged_size,)}
    return ppo_networks.make_ppo_networks(
        sizes,  # type: ignore[arg-type]
        action_size,
        preprocess_observations_fn=running_statistics.normalize,  # type: ignore[arg-type]
        policy_hidden_layer_sizes=config.hidden,
        value_hidden_layer_sizes=config.critic_hidden,
        activation=ACTIVATIONS[config.activation],
        policy_obs_key="state",
        value_obs_key="privileged_state",
        distribution_type="normal",
        noise_std_type="log",
        init_noise_std=config.initial_std,
        mean_kernel_init_fn=jax.nn.initializers.variance_scaling,
        mean_kernel_init_kwargs={"scale": 0.01, "mode": "fan_in", "distribution": "uniform"},
    )


def initial_normalizer(observation_size: int, privileged_size: int) -> running_statistics.RunningStatisticsState:
    """Statistics before any observation: mean 0, standard deviation 1."""
    shapes: Any = {
        "state": specs.Array((observation_size,), np.dtype("float32")),
        "privileged_state": specs.Array((privileged_size,), np.dtype("float32")),
    }
    return running_statistics.init_state(shapes)
