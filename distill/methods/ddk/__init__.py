"""DDK: the data mixture follows the domains in which the student lags its teacher (arXiv 2407.16154)."""
