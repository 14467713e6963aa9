"""Several hosts, each with its own worlds and devices, training one policy (JAX's multi-process mode).

Every host runs the same command with its own `--host` number. Parameters are equal on all hosts at all times: each host
acts and steps its own worlds, the update splits the whole batch over the devices of all hosts.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from sim.errors import InputError, first_line


@dataclass(frozen=True)
class Hosts:
    """This host's place among those that train together."""

    coordinator: str = ""
    """Address of host 0, `name:port`; empty on a single host."""
    count: int = 1
    index: int = 0
    listen: str = "127.0.0.1"
    """IP address on which host 0 waits for the others: this computer's own unless asked: who reaches it may join."""

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise InputError(f"--host must be 0 to {self.count - 1} with --hosts {self.count}, got {self.index}")
        if self.count > 1 and not self.coordinator.rpartition(":")[2].isdigit():
            raise InputError(f"several hosts need --coordinator NAME:PORT (host 0's address), got '{self.coordinator}'")

    def join(self, seconds: int = 300) -> None:
        """Waits for the others. Call before anything else uses JAX; does nothing on a single host.

        Raises:
          InputError: the others did not come within `seconds`.
        """
        if self.count == 1 or jax.distributed.is_initialized():
            return
        try:
            jax.distributed.initialize(
                self.coordinator,
                self.count,
                self.index,
                initialization_timeout=seconds,
                coordinator_bind_address=self._bound(),
            )
        except RuntimeError as error:
            reason = first_line(error)
            raise InputError(
                f"host {self.index} of {self.count} found no training at {self.coordinator}: {reason}"
            ) from error

    def _bound(self) -> str:
        """Address and port on which host 0 listens."""
        address = f"[{self.listen}]" if ":" in self.listen else self.listen
        return f"{address}:{self.coordinator.rpartition(':')[2]}"

    def share(self, worlds: int) -> int:
        """Worlds of this host out of all of them."""
        if worlds % self.count:
            raise InputError(f"--worlds {worlds} cannot be split over {self.count} hosts evenly")
        return worlds // self.count

    def agreed(self, value: int) -> int:
        """Host 0's value, on every host."""
        if self.count == 1:
            return value
        from jax.experimental import multihost_utils

        return int(multihost_utils.broadcast_one_to_all(np.int64(value).astype(np.int32)))


def local(tree: Any) -> Any:
    """A replicated pytree as arrays of this process's first device."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)
