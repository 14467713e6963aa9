"""Episodes out of what many worlds did side by side."""

import numpy as np


class EpisodeRecorder:
    """Collects control steps of `worlds` side by side."""

    def __init__(self) -> None:
        self.steps: list[dict[str, np.ndarray]] = []

    def add(self, fresh: np.ndarray, alive: np.ndarray, **fields: np.ndarray) -> None:
        """One control step: whether an episode begins with it and whether it counts, bool `[worlds]`, and the fields
        `[worlds, ...]`."""
        self.steps.append({"fresh": np.array(fresh), "alive": np.array(alive), **fields})

    def came_of_it(self, **fields: np.ndarray) -> None:
        """What came of the last control step, fields `[worlds, ...]`."""
        self.steps[-1] |= {name: np.array(values) for name, values in fields.items()}

    def episodes(self) -> tuple[dict[str, np.ndarray], list[int]]:
        """Fields `[rows, ...]`, episode after episode, and the length of each."""
        stacked = {name: np.stack([step[name] for step in self.steps], 1) for name in self.steps[0]}
        fresh, alive = stacked.pop("fresh"), stacked.pop("alive")
        fresh[:, 0] = True
        fresh[:, 1:] |= alive[:, 1:] & ~alive[:, :-1]
        number = np.cumsum(fresh, 1)[alive] + np.repeat(np.arange(len(fresh)) * (fresh.shape[1] + 1), alive.sum(1))
        _, lengths = np.unique(number, return_counts=True)
        return {name: np.ascontiguousarray(values[alive]) for name, values in stacked.items()}, lengths.tolist()
