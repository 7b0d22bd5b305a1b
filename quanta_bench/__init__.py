"""quanta-bench: a benchmark suite for parameter-efficient fine-tuning of language models."""

__version__ = "0.1.0"
