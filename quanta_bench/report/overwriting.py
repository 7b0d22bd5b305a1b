"""Keep a file that holds more numbers than its replacement would."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from quanta_bench.report.failed import COLUMN as FAILED


def free_name(folder: Path, name: str, text: str) -> str:
    """The name under which a table or figure is written.

    Args:
        folder: the output folder.
        name: its name; an earlier version is in ``<name>.csv``.
        text: its numbers as CSV.

    Returns:
        ``name``, or ``<name>-partial`` if an earlier file has more filled cells, because it was
        made from more runs or from runs whose predictions are no longer stored.
    """
    try:
        earlier = (folder / f"{name}.csv").read_text(encoding="utf-8")
    except OSError:
        return name
    return name if filled_cells(text) >= filled_cells(earlier) else f"{name}-partial"


def filled_cells(text: str) -> int:
    """Number of filled cells of a CSV text; in a cell that lists numbers, each number counts.

    What failed is no number: its lines and their column do not count.
    """
    names, *rows = [*csv.reader(io.StringIO(text))] or [[]]
    failed = names.index(FAILED) if FAILED in names else len(names)
    kept = [row for row in rows if not any(row[failed : failed + 1])]
    return sum(_count(cell) for row in ([n for n in names if n != FAILED], *kept) for cell in row)


def _count(cell: str) -> int:
    words = cell.split()
    try:
        return len([float(word) for word in words])
    except ValueError:
        return 1
