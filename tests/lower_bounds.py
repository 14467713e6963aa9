"""Prints the requirements of setup.py at their lowest versions, one a line: what `make bounds` installs and tries.

    python tests/lower_bounds.py gymnasium

Without names those of the base install; the names of further packages are looked up among the extras.
"""

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import setuptools

ROOT = Path(__file__).resolve().parents[1]


def lowest(requirement: str) -> str:
    """`name>=1.2,<2` -> `name==1.2`; a pin, or a package without a bound, stays as it is."""
    found = re.match(r"([A-Za-z0-9_.\-\[\],]+?)\s*>=\s*([0-9][0-9.]*)", requirement)
    return requirement if found is None else f"{found[1]}=={found[2]}"


def requirements(further: list[str]) -> list[str]:
    """Of the base install, and of the `further` packages that extras name.

    Raises:
      SystemExit: no extra names such a package.
    """
    declared: dict[str, Any] = {}
    before, setuptools.setup = setuptools.setup, lambda **given: declared.update(given)
    try:
        runpy.run_path(str(ROOT / "setup.py"))
    finally:
        setuptools.setup = before
    extras = [requirement for extra in declared["extras_require"].values() for requirement in extra]
    found = list(declared["install_requires"])
    for name in further:
        matching = [r for r in extras if re.match(rf"{re.escape(name)}\b(?!-)", r)]
        if not matching:
            raise SystemExit(f"no extra of setup.py names {name}")
        found.append(matching[0])
    return [lowest(requirement) for requirement in found]


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
