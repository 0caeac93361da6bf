"""Collections: what is stored, where it is stored, and how it is read and written."""
