"""Training pairs: their schema, their files, and the published layouts that they are read from."""
