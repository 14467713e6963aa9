"""Hidden states beside logits, block by block (as TinyBERT's, arXiv 1909.10351, for models that write)."""
