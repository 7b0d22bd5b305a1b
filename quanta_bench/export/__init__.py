"""What runs leave for other tools: models that `peft` and `transformers` load, their cards."""
