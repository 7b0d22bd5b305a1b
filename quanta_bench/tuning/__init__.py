"""Tune learning rates on validation items: a sweep for each row of a suite."""
