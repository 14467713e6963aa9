"""PGKD: a black-box teacher writes the texts that a small classifier lacks (arXiv 2411.05045)."""
