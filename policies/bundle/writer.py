"""Writing a policy bundle: a graph and its metadata become one ONNX file."""

import os
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from policies.bundle.reader import KEY, Bundle, Metadata
from sim.errors import InputError

GOLDEN_COUNT = 16
"""Golden vectors in a bundle."""


def write_bundle(graph: Any, metadata: Metadata, file: Path) -> None:
    """Serialises graph and metadata to `file`: equal input gives equal bytes; whole or not at all."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="barkour")
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, metadata.to_json()
    onnx.checker.check_model(model)
    partial = file.with_suffix(".partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(model.SerializeToString(deterministic=True))
        try:
            Bundle.load(partial)
        except InputError:
            partial.unlink()
            raise
        os.replace(partial, file)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from error
