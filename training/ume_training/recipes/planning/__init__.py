"""Estimate memory, time and disk space of a recipe before it runs."""
