"""LLaVA-MoD: a sparse student that sees, taught by imitation and then by preferences (arXiv 2408.15881)."""
