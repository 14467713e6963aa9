"""Losses of a student against a teacher's signal; each says which kinds of signal it takes."""
