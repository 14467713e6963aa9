"""FIRST: distilling a calibrated teacher's five likeliest tokens (arXiv 2408.12168)."""
