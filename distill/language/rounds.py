"""How a training of so many steps is cut into rounds, after each of which the student is measured."""

from distill.core.loop import LoopConfig
from distill.language.trained_options import TrainedOptions


def in_rounds(options: TrainedOptions, steps: int) -> LoopConfig:
    """`steps` optimiser steps in `options.rounds` rounds as even as can be, at most one a step."""
    rounds = min(options.rounds, steps)
    each = steps // rounds
    return LoopConfig(
        rounds=rounds - 1, first_steps=steps - (rounds - 1) * each, steps=each, batch=options.batch,
        learning_rate=options.learning_rate, last_learning_rate=options.learning_rate / 10,
        warmup=min(options.warmup, steps), weight_decay=options.weight_decay, smoothing=0.0, held_out=256,
        precision=options.precision, seed=options.seed, checkpoint_minutes=options.checkpoint_minutes,
    )  # fmt: skip
