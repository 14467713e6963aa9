"""Knowledge distillation: the tokens of the data and the teacher's distribution over them (arXiv 1503.02531)."""
