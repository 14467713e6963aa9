"""Several locomotion specialists into one Locomotion-Transformer: the project's main recipe on `distill.core`."""
