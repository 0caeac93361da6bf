"""Inspect, move and upgrade collections."""
