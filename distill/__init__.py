"""What teaches: distillation of skills into one locomotion policy, and of large language models into small ones."""
