"""What the functions of `sim` that run on both numpy and JAX take and give."""

from typing import Any, TypeAlias

Array: TypeAlias = Any
"""An array of numpy or jax, shapes as the docstring says; a float stands for an array of no dimensions."""
Namespace: TypeAlias = Any
"""`numpy` or `jax.numpy`."""
