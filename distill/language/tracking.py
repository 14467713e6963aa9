"""Weights & Biases beside TensorBoard, where it is installed and asked for."""

import importlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.core.checkpoints import write_text
from distill.core.errors import DistillError, first_line
from distill.core.reading import read_text

ID = "wandb_id"


def require_wandb() -> Any:
    """The module. Raises `DistillError` where it is not installed."""
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise DistillError(f"--wandb needs the package wandb: pip install wandb ({error})") from error


class Tracked:
    """One run of a W&B project, the same one after an interruption: its id is kept in the run's folder."""

    def __init__(self, project: str, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        """`folder` holds the distillation's run, `name` and `config` are shown with it.

        Raises:
          DistillError: wandb is not installed, or refuses: no key, no such project, no server in reach.
        """
        wandb = require_wandb()
        kept = folder / ID
        number = secrets.token_hex(8)
        if os.path.lexists(kept):
            number = read_text(kept, 1 << 10).strip()
            if not re.fullmatch("[0-9a-f]{16}", number):
                raise DistillError(f"{kept} holds no id of a run of W&B: remove it, and the run there begins anew")
        try:
            self._run = wandb.init(
                project=project, id=number, resume="allow", name=name, config=dict(config), dir=str(folder)
            )
        except (wandb.Error, OSError, ValueError) as error:
            reason = first_line(error)
            raise DistillError(f"W&B cannot be used: {reason}") from error
        write_text(kept, number)
        self.before = 0
        """Optimiser steps of the generations before, so that steps never fall."""

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """What was measured at one optimiser step, by the names that TensorBoard has for it."""
        self._run.log(dict(values), step=self.before + step)

    def finish(self, figures: Mapping[str, Any], interrupted: bool = False) -> None:
        """Ends the run, with the figures of the whole."""
        self._run.summary.update(dict(figures))
        self._run.finish(exit_code=int(interrupted))
