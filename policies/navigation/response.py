"""How a walker's velocity answers its commands: what feed-forward and predictions take it to do. numpy only.

A table of the answer to a step of each component, identified in simulation for a robot and a policy
(`barkour robot measure NAME --policy FILE.onnx --response`) and kept beside the policy's file.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim.errors import InputError
from sim.folders import replacing
from sim.observation import COMMANDS
from sim.reading import number, read_json, read_text

LONGEST = 200
"""Entries of a table, at most."""
MOST = 4.0
"""Shares of a step that a walker swings to, at most."""
LARGEST = 1 << 20
"""Bytes of its file, at most."""
SUFFIX = ".response.json"


@dataclass(frozen=True)
class Response:
    """What has come of a step of the command after 1, 2, ... control periods, as a share of it; then it stays so."""

    period: float
    """Control period, s."""
    forward: tuple[float, ...]
    sideways: tuple[float, ...]
    yaw: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 0 < self.period < 1:
            raise InputError(f"a response's period must be between 0 and 1 s, got {self.period}")
        rows = self.forward, self.sideways, self.yaw
        if len({len(row) for row in rows}) != 1 or not 1 <= len(self.forward) <= LONGEST:
            raise InputError(f"a response's tables must be of one length from 1 to {LONGEST}")
        if not all(np.isfinite(row).all() and np.abs(row).max() < MOST and 0 < row[-1] < 2 for row in rows):
            raise InputError(f"a response's tables must be numbers below {MOST:g} that end between 0 and 2")

    @property
    def impulse(self) -> np.ndarray:
        """Share of a command that has been waiting 0, 1, ... periods in the velocity of this one, `[n, 3]`."""
        steps = np.array([self.forward, self.sideways, self.yaw]).T
        return np.diff(steps, axis=0, prepend=np.zeros((1, 3)))

    @property
    def lag(self) -> np.ndarray:
        """Mean age of what the velocity follows, s `[3]`."""
        impulse = self.impulse
        return self.period * (np.arange(0.5, len(impulse))[:, None] * impulse).sum(0) / impulse.sum(0)

    def write(self, file: Path) -> None:
        """Writes the table."""
        rows = {name: [round(float(v), 4) for v in getattr(self, name)] for name in COMMANDS}
        body = ",\n".join(f' "{name}": {json.dumps(row)}' for name, row in rows.items())
        with replacing(file) as partial:
            partial.write_text(f'{{\n "period": {self.period},\n{body}\n}}\n', encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> "Response":
        """A table that was written. Raises `InputError` where it is none."""
        try:
            data = read_json(read_text(file, LARGEST))
            rows = {name: tuple(number(v) for v in data[name]) for name in COMMANDS}
            return cls(number(data["period"]), **rows)
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise InputError(f"{file} is no table of a walker's response") from error

    @classmethod
    def first_order(cls, period: float, lags: Sequence[float] = (0.2, 0.2, 0.06), seconds: float = 0.8) -> "Response":
        """Of a walker that nobody has measured: a first-order lag (s) each for forward, sideways and yaw."""
        time = period * np.arange(1, round(seconds / period) + 1)
        return cls(period, *(tuple((1 - np.exp(-time / lag)).tolist()) for lag in lags))


def response_beside(bundle: Path, period: float) -> Response:
    """The table beside a policy's file; that of an ordinary walker where there is none."""
    file = bundle.with_suffix(SUFFIX)
    return Response.read(file) if file.is_file() else Response.first_order(period)


class ModelledWalker:
    """A walker that does exactly what a `Response` says."""

    def __init__(self, response: Response) -> None:
        self._impulse = response.impulse
        self.reset()

    def reset(self) -> None:
        """To rest."""
        self._asked = np.zeros_like(self._impulse)

    def step(self, command: Sequence[float] | np.ndarray) -> np.ndarray:
        """Velocity `[3]` during the period that begins with `command`: forward, left (m/s) and around (rad/s)."""
        self._asked[1:] = self._asked[:-1]
        self._asked[0] = command
        return (self._impulse * self._asked).sum(0)
