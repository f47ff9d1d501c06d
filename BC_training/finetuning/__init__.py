"""Fine-tuning in play: parallel games, what was played, and the update by proximal policy optimisation."""
