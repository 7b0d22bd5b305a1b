"""Compute runs: one, or all of a table, several at once, none twice."""
