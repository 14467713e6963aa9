"""Generalised knowledge distillation: a part of the rows is the student's own (arXiv 2306.13649)."""
