"""Fine-tuning methods, one file or package each."""
