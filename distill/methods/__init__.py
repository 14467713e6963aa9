"""Published distillation methods as short recipes on the core's loop, each with a small experiment that can fail."""
