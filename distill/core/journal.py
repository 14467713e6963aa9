"""What a run leaves behind for people: TensorBoard, a log of JSON lines, a picture and a summary."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from distill.core.checkpoints import save_figure, write_json
from distill.core.reading import check_regular, read_text

LOG = "log.jsonl"
LARGEST_LOG = 2**30
"""Bytes."""
DRAWN = {"fit": {"step", "loss"}, "round": {"step", "proxy", "golden"}}
"""What a line of each kind must have."""


def logged(folder: Path) -> int:
    """Bytes of the log so far."""
    return (folder / LOG).stat().st_size if (folder / LOG).is_file() else 0


def cut(folder: Path, size: int | None) -> None:
    """Takes away what was logged beyond `size` bytes: a run that goes on from a checkpoint does it again."""
    if size is not None and logged(folder) > size:
        os.truncate(folder / LOG, size)


class Journal:
    """The log files of one run folder. `write=False` keeps silent (other processes of the same run)."""

    def __init__(
        self,
        folder: Path,
        write: bool = True,
        step: int = 0,
        tracker: Callable[[int, Mapping[str, float]], None] | None = None,
    ) -> None:
        """`step` is where the run goes on: TensorBoard forgets what was logged beyond. `tracker` is given each step's
        values by TensorBoard's names."""
        self.folder, self.write, self._step, self._tracker = Path(folder), write, step, tracker
        self._tensorboard: Any = None

    def __enter__(self) -> "Journal":
        if self.write:
            from tensorboardX import SummaryWriter

            self._tensorboard = SummaryWriter(
                str(self.folder / "tensorboard"), purge_step=self._step + 1 if self._step else None
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()

    def add(self, step: int, values: Mapping[str, float], kind: str = "fit") -> None:
        """One line at optimiser step `step`."""
        if not self.write:
            return
        path = self.folder / LOG
        if path.exists():
            check_regular(path)
        with path.open("a") as log:
            rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
            log.write(json.dumps({"kind": kind, "step": step, **rounded}) + "\n")
        for name, value in values.items():
            self._tensorboard.add_scalar(f"{kind}/{name}", value, step)
        if self._tracker is not None:
            self._tracker(step, {f"{kind}/{name}": value for name, value in values.items()})

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """What was logged of one kind, oldest first; where a run went back to a checkpoint, the newest of each step.

        Lines that were changed into something else are left out: what is drawn of them must not cost a run its end.
        """
        path = self.folder / LOG
        found: dict[int, dict[str, Any]] = {}
        if not path.exists():
            return []
        for line in read_text(path, LARGEST_LOG).splitlines():
            with suppress(ValueError, KeyError, TypeError, RecursionError):
                row: dict[str, Any] = json.loads(line)
                if row["kind"] == kind and set(row) >= DRAWN[kind]:
                    found[int(row["step"])] = row
        return [row for _, row in sorted(found.items())]

    def plot(self, title: str) -> Path | None:
        """`curve.png`: training loss, loss on held-out experience, golden metric. None where nothing is logged."""
        fit, rounds = self.rows("fit"), self.rows("round")
        if not self.write or not fit:
            return None
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure: Any = Figure(figsize=(8, 5), layout="constrained")  # matplotlib's own types end at keyword arguments
        FigureCanvasAgg(figure)
        left = figure.add_subplot()
        left.plot([r["step"] for r in fit], [r["loss"] for r in fit], color="0.7", label="loss")
        if rounds:
            left.plot([r["step"] for r in rounds], [r["proxy"] for r in rounds], "C0o-", label="held-out loss (proxy)")
            right = left.twinx()
            right.plot([r["step"] for r in rounds], [r["golden"] for r in rounds], "C1s-", label="golden metric")
            right.set_ylabel("golden metric", color="C1")
        left.set(xlabel="optimiser step", ylabel="imitation loss", yscale="log", title=title)
        left.legend(loc="upper right")
        path = self.folder / "curve.png"
        save_figure(figure, path)
        return path

    def summary(self, values: Mapping[str, Any]) -> Path:
        """`summary.json`, written whole."""
        path = self.folder / "summary.json"
        write_json(path, dict(values))
        return path
