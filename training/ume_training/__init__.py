"""The Embed-RL recipe: a world to learn from, and the training of Reasoners and Embedders."""
