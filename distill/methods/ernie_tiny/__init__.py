"""ERNIE-Tiny: teacher, data and objective become those of the task one after the other (arXiv 2106.02241)."""
