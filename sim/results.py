"""What a command found: a dataclass that knows its exit status, its `--json` object and how people read it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Result(Mapping[str, Any]):
    """Base of all results. Reads like its JSON object too: `result["score"]`.

    A field whose default is None is part of the object only where it has a value.
    """

    more: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What is known beyond the fields; stands beside them in the object."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From a mapping that has every required field; what else it has goes to `more`."""
        names = {each.name for each in fields(cls)} - {"more"}
        known = {name: value for name, value in values.items() if name in names}
        return cls(**known, more={name: value for name, value in values.items() if name not in names})

    @property
    def failure(self) -> str:
        """One sentence where the command ran and failed its own check; empty where it did as asked."""
        return ""

    @property
    def status(self) -> int:
        """The exit status: 0 done as asked, 1 with a `failure`."""
        return 1 if self.failure else 0

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints, in JSON's own types."""
        return plain(dict(self))

    def show(self, console: "Console") -> None:
        """The result for people; by default a table of its fields."""
        from rich.table import Table

        table = Table(show_header=False)
        table.add_column("what")
        table.add_column("value", overflow="fold")
        for name, value in self.items():
            if isinstance(value, list) and value and isinstance(value[0], Mapping):  # the whole of it is in --json
                value = f"{len(value)} in all"
            table.add_row(cell(name), cell(value))
        console.print(table)

    def _names(self) -> list[str]:
        own = {f.name: f.default is not None or getattr(self, f.name) is not None for f in fields(self)}
        return [*(name for name, there in own.items() if there and name != "more"), *self.more]

    def __getitem__(self, name: str) -> Any:
        if name in self.more:
            return self.more[name]
        if name not in self._names():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())


def plain(value: Any) -> Any:
    """JSON's own types: numbers that are not finite become null, paths become text, arrays become lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def printable(text: str) -> str:
    """`text` with control characters escaped, such as those with which a file's name could write to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cell(value: Any) -> str:
    """A value for a cell of rich's tables: as it is, whatever markup or control characters it holds."""
    from rich.markup import escape

    return escape(printable(str(value)))


def line(console: "Console", name: str, value: Any) -> None:
    """Prints `name: value`, as it is."""
    console.print(printable(f"{name}: {value}"), highlight=False, markup=False, soft_wrap=True)
