"""Teacher hacking: closer to the teacher and further from the truth (arXiv 2502.02671)."""
