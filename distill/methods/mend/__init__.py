"""MEND: demonstrations as a few vectors that a frozen model reads in their place (arXiv 2403.06914)."""
