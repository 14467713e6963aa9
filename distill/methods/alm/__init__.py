"""Approximate likelihood matching: a teacher that splits texts into other tokens (arXiv 2503.20083)."""
