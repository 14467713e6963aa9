"""Strategies as text beside a student that stays as it is (arXiv 2408.07238)."""
