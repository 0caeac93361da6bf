"""The pipeline: load, reason, embed."""
