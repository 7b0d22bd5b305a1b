"""The runs that each row of a stored table rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from quanta_bench.report.table import Column, Table, TableRow
from quanta_bench.results.records import Result, TaskResult


def runs_of(row: TableRow, columns: Sequence[Column], results: Mapping[str, Result]) -> list[str]:
    """The stored runs that a row shows.

    A table names them. One that an earlier version wrote does not: there, a run belongs to a row if
    it has its method, its number of trained parameters and one of its seeds, and scored one of its
    columns with the very value that the table holds for that seed.

    Args:
        row: the row.
        columns: the table's columns.
        results: the runs at hand.

    Returns:
        Names of runs, in the table's order.
    """
    if row.runs:
        return [run for run in row.runs if run in results]
    found: dict[str, None] = {}
    for column in columns:
        value = row.cells.get(column.key)
        for seed, score in (value.seeds if value else {}).items():
            for run, result in results.items():
                if _same_row(row, result, seed) and _scored(result, column, score):
                    found[run] = None
    return list(found)


def _same_row(row: TableRow, result: Result, seed: int) -> bool:
    training = result.training
    return (
        training.spec.method == row.method
        and training.trainable_parameters == row.trainable
        # The base is computed once, under seed 0, whatever the seed is called.
        and (training.spec.seeds.init == seed or not training.steps)
    )


def _scored(result: Result, column: Column, score: float) -> bool:
    task = result.tasks.get(column.task)
    if task is None or (column.items and task.items != column.items):
        return False
    return any(
        math.isclose(scale(task) * value, score, rel_tol=1e-9, abs_tol=1e-9)
        for value in task.metrics.values()
    )


def scale(task: TaskResult) -> float:
    """By what a metric is multiplied in a table: fractions are shown in percent."""
    return 1.0 if task.kind == "perplexity" else 100.0


def perplexity_columns(table: Table, results: Mapping[str, Result]) -> set[str]:
    """The keys of columns in which a lower value is better."""
    kinds = {name: task.kind for result in results.values() for name, task in result.tasks.items()}
    return {
        column.key
        for column in table.columns
        if kinds.get(column.task, "") == "perplexity"
        or any(row.cells[column.key].decimals > 1 for row in table.rows if column.key in row.cells)
    }
