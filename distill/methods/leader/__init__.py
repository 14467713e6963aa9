"""LEADER: what a large text model thinks of a patient, in a small recommender (arXiv 2402.02803)."""
