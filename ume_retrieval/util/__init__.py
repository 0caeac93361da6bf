"""Files, retries, threads and SQLite; nothing here knows about retrieval."""
