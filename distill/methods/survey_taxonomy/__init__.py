"""The survey's map of distillation methods, and its smallest experiment: two directions of KL, two writers."""
