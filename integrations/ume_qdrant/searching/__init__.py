"""From a question to hits: search both vectors, fuse them, read traces and pictures."""
