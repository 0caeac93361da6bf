"""Decode untrusted media in worker processes that may crash, hang or run out of memory."""
