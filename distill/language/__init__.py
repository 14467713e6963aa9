"""What the core's loop needs to distil language models: models, tokenizers, data, generation, evaluation, endpoints."""
