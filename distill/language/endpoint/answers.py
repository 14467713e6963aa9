"""Answers of a black-box teacher on disk: asked once, paid once. One JSON file for each request, put in place whole."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.core.reading import read_json

log = logging.getLogger(__name__)


class AnswerCache:
    """Answers (JSON objects) by request (a JSON object): any difference between requests is another entry.

    An entry holds its request and a checksum, so that a damaged, cut-off or exchanged file is found; `get` then gives
    None, the caller asks again and `put` replaces the file. Several threads and processes may share a folder.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def get(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer, or None where there is none or the file is damaged (which is logged)."""
        path = self.path(request)
        try:
            entry = read_json(path)
            if entry["request"] != json.loads(canonical(request)):
                raise ValueError("it holds another request")
            if entry["sha256"] != _digest({"request": entry["request"], "answer": entry["answer"]}):
                raise ValueError("its checksum does not fit")
            return dict(entry["answer"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the cached answer %s is damaged and asked for again: %s", path, error)
            return None

    def put(self, request: Mapping[str, Any], answer: Mapping[str, Any]) -> Path:
        """Writes the answer, or leaves what was there; it is on the disk when this returns."""
        content = {"request": request, "answer": answer}
        data = canonical({**content, "sha256": _digest(content)}).encode()
        path = self.path(request)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem[:16], suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return path

    def path(self, request: Mapping[str, Any]) -> Path:
        """Where the answer is or would be."""
        key = _digest(request)
        return self.folder / key[:2] / f"{key}.json"


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal for equal values. Raises `ValueError` for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()
