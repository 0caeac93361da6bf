"""Both models behind OpenAI-compatible servers."""
