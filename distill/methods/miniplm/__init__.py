"""MiniPLM: the teacher chooses the corpus, then any student learns from plain text (arXiv 2410.17215)."""
