"""Both models on vLLM, in this process."""
