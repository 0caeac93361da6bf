"""Recipes: YAML files that say how a pair is made, from data to exported checkpoints, and what runs them."""
