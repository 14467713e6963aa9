"""Adverse drug events: a small tagger that learns from a labelling model's answers (arXiv 2307.06439)."""
