"""What decides: specialists and their PPO, policy bundles, the navigator."""
