"""Labelled experience on disk: memory-mapped shards of whole episodes, an index, and a data card.

A shard is a folder with one `.npy` a field, equal numbers of rows, episodes one after the other. `index.json` holds
what is in each, with the SHA-256 of every file. A shard is written whole or not at all, so that an interrupted run goes
on from its last one; what was cut off or changed afterwards is found by `verify` and, where its size gives it away, on
opening.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.core.checkpoints import digest, write_json
from distill.core.errors import DistillError
from distill.core.reading import check_regular, read_json

INDEX, CARD = "index.json", "card.json"
FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """One shard as the index knows it."""

    name: str
    rows: int
    episodes: tuple[int, ...]
    """Length of each episode, in rows."""
    about: dict[str, Any]
    """What the writer said of it: domain, round, seed, who drove."""
    files: dict[str, dict[str, Any]]
    """Field -> `dtype`, `shape` of a row, `sha256`; none where the experience is forgotten."""


LARGEST_INDEX = 2**32
"""Bytes: it names every episode."""


class Shards:
    """The shards of one folder, in the order they were written."""

    def __init__(self, folder: Path) -> None:
        """Opens a folder, or begins an empty one.

        Raises:
          DistillError: the index is unreadable, or a shard that it names is missing or cut off.
        """
        self.folder = Path(folder)
        self.shards: list[Shard] = []
        self._arrays: dict[tuple[str, str], np.ndarray] = {}
        index = self.folder / INDEX
        if os.path.lexists(index):
            try:
                data = read_json(index, LARGEST_INDEX)
                if data["format"] != FORMAT:
                    raise DistillError(f"{index} has format {data['format']}, this code reads {FORMAT}")
                for said in data["shards"]:
                    fields: dict[str, Any] = {**said, "episodes": tuple(said["episodes"])}
                    self.shards.append(Shard(**fields))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DistillError(f"{index} is damaged: {error}") from error
            for shard in self.shards:
                for field in shard.files:
                    self.array(shard, field)

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def rows(self) -> int:
        """Rows over all shards."""
        return sum(shard.rows for shard in self.shards)

    def append(self, fields: Mapping[str, np.ndarray], episodes: Sequence[int], about: Mapping[str, Any]) -> Shard:
        """Writes one shard of `fields` (name -> `[rows, ...]`) and adds it to the index.

        Raises:
          DistillError: fields of different length or with values that are not finite, episodes that do not add up.
        """
        rows = {name: len(values) for name, values in fields.items()}
        count = sum(episodes)
        if not rows or set(rows.values()) != {count} or min(episodes, default=0) < 1:
            raise DistillError(f"a shard of episodes of {count} rows in all cannot hold fields of {rows} rows")
        for name, values in fields.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise DistillError(f"the field '{name}' holds values that are not finite")
        name = f"shard_{len(self.shards):05d}"
        partial = self.folder / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        files: dict[str, dict[str, Any]] = {}
        for field, values in fields.items():
            np.save(partial / f"{field}.npy", np.ascontiguousarray(values))
            files[field] = {
                "dtype": values.dtype.str, "shape": list(values.shape[1:]), "sha256": digest(partial / f"{field}.npy")
            }  # fmt: skip
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)  # left by a run that was cut off before it reached the index
        partial.rename(target)
        shard = Shard(name, count, tuple(int(n) for n in episodes), dict(about), files)
        self.shards.append(shard)
        self._write_index()
        return shard

    def keep(self, count: int) -> None:
        """Drops all but the first `count` shards: what a checkpoint that is gone back to had not seen."""
        dropped, self.shards = self.shards[count:], self.shards[:count]
        if dropped:
            self._write_index()  # first: a shard that the index does not name is none, one that it names must be there
        for shard in dropped:
            self._delete(shard)

    def forget(self, before: int) -> None:
        """Deletes the experience of rounds `before` this one; that there was some stays known."""
        old = [shard for shard in self.shards if shard.files and shard.about.get("round", before) < before]
        if not old:
            return
        self.shards = [replace(shard, files={}) if shard in old else shard for shard in self.shards]
        self._write_index()  # first, as in `keep`
        for shard in old:
            self._delete(shard)

    def _delete(self, shard: Shard) -> None:
        self._arrays = {key: a for key, a in self._arrays.items() if key[0] != shard.name}
        shutil.rmtree(self.folder / shard.name, ignore_errors=True)

    def array(self, shard: Shard, field: str) -> np.ndarray:
        """A shard's field `[rows, ...]`, memory-mapped, read only.

        Raises:
          DistillError: it is forgotten, missing or cut off.
        """
        if not shard.files:
            raise DistillError(f"the experience of {shard.name} in {self.folder} was forgotten")
        key = (shard.name, field)
        if key not in self._arrays:
            path = self.folder / shard.name / f"{field}.npy"
            try:
                check_regular(path)
                values = np.load(path, mmap_mode="r")
            except (OSError, EOFError, ValueError) as error:
                raise DistillError(f"the shard file {path} is missing or cut off ({error})") from error
            said = shard.files[field]
            if values.shape != (shard.rows, *said["shape"]) or values.dtype.str != said["dtype"]:
                raise DistillError(
                    f"the shard file {path} holds {values.dtype.str} {values.shape}, the index says "
                    f"{said['dtype']} {(shard.rows, *said['shape'])}"
                )
            self._arrays[key] = values
        return self._arrays[key]

    def verify(self) -> Iterator[str]:
        """One sentence for every file whose content is not what was written."""
        for shard in self.shards:
            for field, said in shard.files.items():
                path = self.folder / shard.name / f"{field}.npy"
                if not path.is_file():
                    yield f"{path} is missing"
                elif digest(path) != said["sha256"]:
                    yield f"{path} is corrupt: its SHA-256 differs from the index"

    def card(self, row_seconds: float) -> dict[str, Any]:
        """The data card: episodes, hours and rows in all and by domain; also written to `card.json`.

        `row_seconds` is the time that one row stands for, s.
        """
        groups: dict[str, list[Shard]] = {}
        for shard in self.shards:
            groups.setdefault(str(shard.about.get("domain", "all")), []).append(shard)
        card = {
            **_count(self.shards, row_seconds),
            "domains": {name: _count(group, row_seconds) for name, group in sorted(groups.items())},
            "fields": {n: {k: f[k] for k in ("dtype", "shape")} for n, f in self.shards[-1].files.items()}
            if self.shards
            else {},
        }
        write_json(self.folder / CARD, card, indent=1)
        return card

    def _write_index(self) -> None:
        write_json(self.folder / INDEX, {"format": FORMAT, "shards": [vars(shard) for shard in self.shards]}, indent=1)


def _count(shards: Sequence[Shard], row_seconds: float) -> dict[str, Any]:
    episodes, rows = sum(len(s.episodes) for s in shards), sum(s.rows for s in shards)
    return {
        "episodes": episodes,
        "hours": round(rows * row_seconds / 3600, 3),
        "rows": rows,
        "mean_episode_s": round(rows * row_seconds / max(episodes, 1), 2),
        "on_policy_rows": sum(s.rows for s in shards if s.about.get("beta", 1.0) < 1.0),
    }
