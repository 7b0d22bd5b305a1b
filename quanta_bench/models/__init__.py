"""Base models: loading, precision, and what their layers compute."""
