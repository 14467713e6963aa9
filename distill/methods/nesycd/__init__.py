"""NesyCD: general skill in the weights, rare knowledge as text beside them (arXiv 2409.13203)."""
