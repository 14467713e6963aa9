"""Supervised fine-tuning: the data alone, the baseline of every method."""
