"""The runs that each row of a stored table rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from quanta_bench.report.evidence import scale
from quanta_bench.report.table import Column, Table, TableRow
from quanta_bench.results.records import Result


def runs_of(row: TableRow, columns: Sequence[Column], results: Mapping[str, Result]) -> list[str]:
    """The stored runs that a row shows.

    A table names them. One that an earlier version wrote does not: there, a run belongs to a row if
    it has its method, its number of trained parameters and one of its seeds, and every value that
    it scored of the row's columns is the one that the table holds for that seed. Where several
    runs fit a cell, those with the row's label count, and if there are several still, none does.

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
    for seed in dict.fromkeys(seed for value in row.cells.values() for seed in value.seeds):
        fitting = [
            result
            for result in results.values()
            if _same_row(row, result, seed) and _same_scores(row, columns, result, seed)
        ]
        for column in columns:
            of_cell = [result for result in fitting if column.task in result.tasks]
            named = [result for result in of_cell if result.training.label == row.label]
            candidates = named or of_cell
            if len(candidates) == 1 and column.key in row.cells:
                found[candidates[0].run] = None
    return list(found)


def _same_row(row: TableRow, result: Result, seed: int) -> bool:
    training = result.training
    return (
        training.spec.method == row.method
        and training.trainable_parameters == row.trainable
        # The base is computed once, under seed 0, whatever the seed is called.
        and (training.spec.seeds.init == seed or not training.steps)
    )


def _same_scores(row: TableRow, columns: Sequence[Column], result: Result, seed: int) -> bool:
    """Whether all that a run scored of a row's columns is what the row holds for the seed."""
    compared = 0
    for column in columns:
        task, value = result.tasks.get(column.task), row.cells.get(column.key)
        if task is None or value is None or seed not in value.seeds:
            continue
        metric = column.key.removeprefix(column.task).removeprefix("/") or task.metric
        scored = task.metrics.get(metric)
        if scored is None or (column.items and task.items != column.items):
            return False
        if not math.isclose(scale(task) * scored, value.seeds[seed], rel_tol=1e-9, abs_tol=1e-9):
            return False
        compared += 1
    return compared > 0


def perplexity_columns(table: Table, results: Mapping[str, Result]) -> set[str]:
    """The keys of columns, and headings of averages, in which a lower value is better."""
    kinds = {name: task.kind for result in results.values() for name, task in result.tasks.items()}
    columns = {
        column.key
        for column in table.columns
        if kinds.get(column.task, "") == "perplexity"
        or any(row.cells[column.key].decimals > 1 for row in table.rows if column.key in row.cells)
    }
    averages = {
        title for row in table.rows for title, value in row.averages.items() if value.decimals > 1
    }
    return columns | averages
