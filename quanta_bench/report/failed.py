"""What a table says of runs that failed, and of those that memory was short for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quanta_bench.report.table import TableRow
from quanta_bench.runs.cells import Cells

FAILED = "¶"
"""Marks the label of a row some of whose runs failed."""

COLUMN = "failed"
"""The column of the long form that says why runs of a row failed."""


def causes(rows: Sequence[TableRow]) -> list[str]:
    """A note on each run that failed."""
    found = dict.fromkeys(cause.rstrip(".") for row in rows for cause in row.failed)
    return [f"{FAILED} Failed: {cause}." for cause in found]


def halved(rows: Sequence[TableRow], cells: Sequence[Cells]) -> list[str]:
    """A note on the rows that were trained in smaller micro-batches."""
    names = [
        row.label
        for row, cell in zip(rows, cells, strict=True)
        if any(result.training.halvings for result in cell.everything())
    ]
    if not names:
        return []
    return [f"Trained in micro-batches of half the size, after memory ran out: {', '.join(names)}."]


def lines(rows: Sequence[TableRow]) -> list[dict[str, Any]]:
    """A line of the long form for each row some of whose runs failed.

    Its column ``failed`` is there only then, so that the file of a complete table stays as it is.
    """
    return [
        {
            "label": row.label,
            "method": row.method,
            "model": row.model,
            "trainable_parameters": None,
            "items": None,
            COLUMN: " ".join(row.failed),
        }
        for row in rows
        if row.failed
    ]
