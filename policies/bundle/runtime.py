"""onnxruntime without its telemetry, which its Linux builds have on by default.

A robot calls nobody, and the thread that would has no place beside the control loop.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime  # noqa: E402 - reads the variable when it is loaded

__all__ = ["onnxruntime"]
