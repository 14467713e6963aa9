"""What a run would take, from a few steps of it: time a step and memory."""

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from distill.core.collect import Sampler
from distill.core.loop import Distiller, LoopConfig
from distill.core.shards import Shards


def timed_config(config: LoopConfig, steps: int, batch: int) -> LoopConfig:
    """A run's config for so many steps of one round, which are to be timed."""
    return replace(config, rounds=0, first_steps=steps, first_rows=batch, held_out=1, warmup=0, light=True)


def seconds_per_step(distiller: Distiller) -> float:
    """Runs a short run to its end, without measures; the median of its steps, the first and the last left out."""
    stamps: list[float] = []
    distiller.evaluate = lambda student: {"golden": 0.0}
    distiller.sampler = _Stamped(distiller.sampler, stamps)
    distiller.run()
    stamps.append(time.perf_counter())
    return float(np.median(np.diff(stamps)[1:-1])) if len(stamps) > 3 else float(np.diff(stamps).max())


def peak_bytes() -> int:
    """Of memory: this process's, or of its device."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Stamped:
    """A sampler that notes when it is asked: once a step."""

    def __init__(self, sampler: Sampler, stamps: list[float]) -> None:
        self.sampler, self.stamps = sampler, stamps

    def sample(
        self, shards: Shards, rng: np.random.Generator, counts: Mapping[str, int], held_out: bool = False
    ) -> dict[str, torch.Tensor]:
        """As the sampler."""
        if not held_out:
            self.stamps.append(time.perf_counter())
        return self.sampler.sample(shards, rng, counts, held_out)
