"""Self-distillation with a share of the true targets (Borup and Andersen, arXiv 2102.13088)."""
