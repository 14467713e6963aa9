"""Where a robot's bundles lie: `<skill>.onnx` for each specialist, `generalist.onnx`.

The default robot's lie in the folder of shipped bundles itself, those of another robot of this package in a folder of
its name therein, and those of a robot from elsewhere in `models/` of the folder that describes it.
"""

from pathlib import Path

import sim.robots
from sim.robots.description import DEFAULT, robot_folders


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


def bundle_file(name: str, robot: str = DEFAULT) -> Path:
    """Where the bundle called `name` of a known robot lies, whether or not it exists."""
    return folder_of(robot) / f"{name}.onnx"


def folder_of(robot: str) -> Path:
    """The folder of a known robot's bundles, whether or not it holds any."""
    if robot == DEFAULT:
        return folder()
    described = robot_folders()[robot]
    ours = described.parent == Path(str(sim.robots.__file__)).parent
    return folder() / robot if ours else described / "models"
