"""A strong model's answers after thinking, learned without the thoughts (arXiv 2410.18588)."""
