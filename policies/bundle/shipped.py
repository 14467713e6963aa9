"""Where the bundles lie that ship with the package: `<skill>.onnx` for each specialist, `generalist.onnx`."""

from pathlib import Path


def folder(start: Path = Path(__file__)) -> Path:
    """The folder of shipped bundles, whether or not it holds any.

    A checkout keeps it at `models/`. An installation keeps it at `share/barkour/models` below its prefix, which is
    some parent of this file: of a virtual environment, of `pip install --user` or `--target`, of a colcon workspace.
    """
    root = start.resolve().parents[2]
    if (root / "setup.py").is_file():
        return root / "models"
    for parent in start.resolve().parents:
        if (parent / "share" / "barkour").is_dir():
            return parent / "share" / "barkour" / "models"
    return root / "models"


def bundle_file(name: str) -> Path:
    """Where the shipped bundle called `name` lies, whether or not it exists."""
    return folder() / f"{name}.onnx"
