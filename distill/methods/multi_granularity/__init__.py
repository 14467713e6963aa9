"""Multi-granularity semantic revision: corrected samples, adaptive KL, span consistency (arXiv 2407.10068)."""
