"""Model cards: what is known about each model, its sources, and its published vectors."""
