"""Compute runs: single ones or all of a table, concurrently, and never twice."""
