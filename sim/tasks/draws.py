"""Chance by name: uniform numbers are drawn as one array a control step, and every use has its own columns of it.

A column that is not used keeps its place, so that what was trained with a seed is trained again with it.
"""

from sim.arrays import Array


class Draws:
    """Which columns of an array of uniform numbers in [0, 1) belong to what."""

    def __init__(self, *widths: tuple[str, int]) -> None:
        """`widths` are names and numbers of columns in order; columns without a name ("") are not used."""
        self.columns: dict[str, slice | int] = {}
        self.size = 0
        for name, width in widths:
            if name in self.columns:
                raise ValueError(f"'{name}' is drawn twice")
            if name:
                self.columns[name] = self.size if width == 1 else slice(self.size, self.size + width)
            self.size += width

    def of(self, u: Array) -> "Drawn":
        """The numbers `[..., size or more]` of numpy or jax, by name."""
        return Drawn(u, self.columns)


class Drawn:
    """Uniform numbers by name: `drawn.push` is `[..., width]`, or `[...]` where it is one number."""

    def __init__(self, u: Array, columns: dict[str, slice | int]) -> None:
        self._u, self._columns = u, columns

    def __getattr__(self, name: str) -> Array:
        try:
            return self._u[..., self._columns[name]]
        except KeyError:
            raise AttributeError(f"nothing is drawn under the name '{name}'") from None
