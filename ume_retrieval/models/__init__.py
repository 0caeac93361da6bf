"""Model cards: facts about each model, their sources, and published vectors."""
