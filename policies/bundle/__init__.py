"""A trained policy as one ONNX file: written, read and checked."""
