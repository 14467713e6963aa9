"""What is trained: commands, observations, rewards, endings, randomisation and curricula, put together into skills."""
