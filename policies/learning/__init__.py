"""How specialists learn: PPO, networks, checkpoints, training runs, several hosts."""
