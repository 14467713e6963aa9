"""The policies that ship with the package: where their bundles lie, and what the name in `--policy` means."""

from pathlib import Path

from sim.errors import InputError

SPECIALISTS = ("walk", "climb", "jump")
"""One bundle a skill, `models/<skill>.onnx`."""

GENERALIST = "generalist"
"""One bundle for every skill, `models/generalist.onnx`."""


def folder(start: Path = Path(__file__)) -> Path | None:
    """The folder of shipped bundles, or None where there is none.

    A checkout keeps it at `models/`. An installation keeps it at `share/barkour/models` below its prefix, which is
    some parent of this file: of a virtual environment, of `pip install --user` or `--target`, of a colcon workspace.
    """
    checkout = start.resolve().parents[1]
    if (checkout / "setup.py").is_file() and (checkout / "models").is_dir():
        return checkout / "models"
    for parent in start.resolve().parents:
        if (parent / "share" / "barkour" / "models").is_dir():
            return parent / "share" / "barkour" / "models"
    return None


def shipped() -> dict[str, Path]:
    """Bundles that this installation has, by name: skills and `generalist`."""
    found = folder()
    return {path.stem: path for path in sorted(found.glob("*.onnx"))} if found else {}


def bundle_paths(policy: str) -> list[Path]:
    """The bundle files that a policy name stands for.

    Args:
      policy: `specialists` (every shipped skill, `walk` first), `generalist`, or the path of a bundle.

    Raises:
      InputError: the name is unknown, or this installation ships no such policy.
    """
    have = shipped()
    if policy == "specialists":
        paths = [have[skill] for skill in SPECIALISTS if skill in have]
        if not paths:
            raise InputError("this installation ships no specialists: give --policy FILE.onnx, made by 'barkour train'")
        return paths
    if policy == GENERALIST:
        if GENERALIST not in have:
            raise InputError("this installation ships no generalist policy: use --policy specialists or FILE.onnx")
        return [have[GENERALIST]]
    path = Path(policy)
    if not path.is_file():
        if path.suffix == ".onnx":
            raise InputError(f"there is no policy file {policy}")
        raise InputError(f"unknown policy '{policy}': known are specialists, generalist and the path of an .onnx file")
    return [path]
