"""UniversalNER: a teacher's entity labels as a conversation, one question for each type (arXiv 2308.03279)."""
