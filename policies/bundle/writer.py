"""Writing a policy bundle: a graph and its metadata become one ONNX file.

`python -m policies.bundle.writer FILE.onnx ...` gives files of an older schema today's, graph and numbers unchanged.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from policies.bundle.container import BLANK, CHECKSUM, stamped
from policies.bundle.metadata import KEY, SCHEMA, Metadata, flat
from policies.bundle.reader import Bundle
from sim.errors import InputError
from sim.folders import replacing
from sim.observation import Layout

GOLDEN_COUNT = 16
"""Golden vectors in a bundle."""
FORMERLY = "formerly"
"""Entry of the provenance with the SHA-256 of the file that a bundle was before its metadata were written anew."""


def write_bundle(graph: Any, metadata: Metadata, file: Path, force: bool = True) -> None:
    """Serialises graph and metadata to `file`, with the flat keys that other tools read and a checksum over all of it:
    equal input gives equal bytes; whole or not at all. One that is there is replaced only with `force`.

    Raises:
      InputError: it is there, or cannot be written.
    """
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="barkour")
    try:
        entries = {
            KEY: metadata.to_json(),
            **flat(metadata, Layout.from_dict(metadata.layout)),
            CHECKSUM: BLANK.decode(),
        }
    except ValueError as error:
        raise InputError(f"cannot write {file}: {error}") from error
    for key, value in entries.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    content = stamped(model.SerializeToString(deterministic=True))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file, new=not force) as partial:
            partial.write_bytes(content)
            Bundle.load(partial, trusted=True)  # a graph of our own making
    except OSError as error:
        if isinstance(error, FileExistsError) and error.filename2:  # not a file where its folder should be
            raise InputError(f"{file} exists: add --force to replace it") from error
        raise InputError(f"cannot write {file}: {error.strerror}") from error


def renew(file: Path) -> bool:
    """Gives a bundle today's schema in place; returns whether it had another one. Graph and numbers stay the same, and
    its provenance says which file it was.

    Raises:
      InputError: the file is no bundle, or cannot be written.
    """
    if Bundle.load(file).metadata.schema == SCHEMA:
        return False
    rewrite(file, file)
    return True


def rewrite(file: Path, to: Path, force: bool = True, graph: Any = None, **changes: Any) -> None:
    """Writes a bundle with today's schema and other metadata; its provenance says which file it was.

    Args:
      graph: ONNX graph of the same network in another form; without it the file's own.

    Raises:
      InputError: the file is no bundle, `to` is there without `force`, or cannot be written.
    """
    old = Bundle.load(file)
    content = file.read_bytes()
    said = {**json.loads(old.metadata.to_json()), **changes, "schema": SCHEMA}
    said["provenance"] = {**said["provenance"], FORMERLY: hashlib.sha256(content).hexdigest()}
    write_bundle(graph or onnx.load_from_string(content).graph, Metadata.from_json(json.dumps(said)), to, force)


def main(files: list[str]) -> int:
    """Renews the files; the exit status."""
    for name in files:
        try:
            print(f"{name}: {'renewed' if renew(Path(name)) else 'is of today'}")
        except InputError as error:
            print(f"policies.bundle.writer: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
