"""Fine-tuning methods, one file or folder each."""
