"""Engines that run the two models: one protocol each, several implementations, and how a name becomes an engine."""
