"""Both models on Hugging Face transformers, in this process."""
