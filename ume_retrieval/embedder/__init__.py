"""Embedders: chats in, unit vectors out."""
