"""Benchmark tasks, one file a family.

A task imports ``quanta_bench.task`` and no other part of the suite.
"""
