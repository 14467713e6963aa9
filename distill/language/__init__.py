"""Distillation of language models on the core: models, text, teachers behind an endpoint, recipes' parts."""
