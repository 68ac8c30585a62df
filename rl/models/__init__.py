"""Models and tokenizers: the embedded default, and Hugging Face's."""
