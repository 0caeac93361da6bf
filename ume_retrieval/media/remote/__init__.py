"""Fetch media from allowed hosts."""
