"""Reasoners: chats in, texts out."""
