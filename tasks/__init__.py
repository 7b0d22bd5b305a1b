"""Benchmark tasks, one file per family.

A task imports only ``quanta_bench.task`` from the suite.
"""
