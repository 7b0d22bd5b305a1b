"""Compute a table by processes that a cluster starts: Ray, or SLURM."""
