"""Train an adapted model and keep its best checkpoint."""
