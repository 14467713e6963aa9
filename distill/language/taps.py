"""What parts of a model put out while it runs."""

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn


class Taps:
    """Keeps the newest output of each of some modules while it is entered."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        self.parts = list(parts)
        self.found: dict[int, Tensor] = {}
        """Place of a module among `parts` -> its newest output."""

    def __enter__(self) -> Self:
        self.handles = [part.register_forward_hook(self._keep(i)) for i, part in enumerate(self.parts)]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _keep(self, place: int) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ARG001
            self.found[place] = output

        return keep
