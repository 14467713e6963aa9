"""Distilling step by step: the teacher's rationale as a second task (arXiv 2305.02301)."""
