"""The rows of a long table that are shown on the screen; files have all."""

from __future__ import annotations

import math

from quanta_bench.report.table import Table, TableRow

MOST_ROWS = 30
"""Rows of a table on the screen."""

MOST_LINES = 100
"""Lines of the values of single seeds on the screen."""


def screen_rows(table: Table) -> list[TableRow]:
    """The rows to be shown, in the table's order; all of them, if they are few.

    Of a longer table: levels such as chance, the first row of each method and model, with which
    others are compared, and the best rows by :func:`leading`.
    """
    if len(table.rows) <= MOST_ROWS:
        return table.rows
    firsts = {(row.method, row.model): n for n, row in reversed([*enumerate(table.rows)])}
    kept = {n for n, row in enumerate(table.rows) if not row.method} | set(firsts.values())
    best = sorted(range(len(table.rows)), key=lambda n: _rank(table, table.rows[n]))
    for number in best:
        if len(kept) >= MOST_ROWS:
            break
        kept.add(number)
    return [table.rows[number] for number in sorted(kept)]


def leading(table: Table) -> str:
    """Heading of the values that rows are chosen by: the first average, or else the first column.

    Empty for a table without columns.
    """
    titles = [*table.averages, *(column.title for column in table.columns)]
    return titles[0] if titles else ""


def _rank(table: Table, row: TableRow) -> float:
    """Lowest for the best row; rows without the value come last."""
    if table.averages:
        value = row.averages.get(table.averages[0])
        lower = all(column.lower_is_better for column in table.columns)
    elif table.columns:
        first = table.columns[0]
        value, lower = row.cells.get(first.key), first.lower_is_better
    else:
        value, lower = None, False
    if value is None or math.isnan(value.mean):
        return math.inf
    return value.mean if lower else -value.mean
