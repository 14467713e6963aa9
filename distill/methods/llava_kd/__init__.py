"""LLaVA-KD: a small model that sees learns from a large one in three stages (arXiv 2410.16236)."""
