"""Benchmark tasks, one file per family.

A task imports only ``quanta_bench.task`` from the suite and, for files of any format,
``quanta_bench.rows``.
"""
