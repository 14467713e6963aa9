"""Sequence-level distillation: fine-tuning on what the teacher writes (arXiv 1606.07947)."""
