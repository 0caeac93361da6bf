"""Index and search on Qdrant: in this process (Qdrant Edge) or on a server (`QdrantClient`)."""
