"""Reverse KL on the student's own answers: on-policy distillation token by token (arXiv 2306.08543)."""
