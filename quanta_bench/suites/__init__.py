"""A table as a grid of runs, read from YAML."""
