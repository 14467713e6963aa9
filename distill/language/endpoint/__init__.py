"""Black-box teachers behind an OpenAI-compatible endpoint: asked within limits, answers kept on disk."""
