"""A file that holds more numbers than what would replace it is kept."""

from __future__ import annotations

import csv
import io
from pathlib import Path


def free_name(folder: Path, name: str, text: str) -> str:
    """The name under which a table or figure is written.

    Args:
        folder: where it is written.
        name: its name; an earlier one is at ``<name>.csv``.
        text: its numbers as CSV.

    Returns:
        ``name``, or ``<name>-partial`` where an earlier file has more filled cells: it was made of
        more runs, or of runs whose predictions are no longer stored.
    """
    try:
        earlier = (folder / f"{name}.csv").read_text(encoding="utf-8")
    except OSError:
        return name
    return name if filled_cells(text) >= filled_cells(earlier) else f"{name}-partial"


def filled_cells(text: str) -> int:
    """Filled cells of a CSV text; in one that lists numbers, such as seeds, each counts."""
    rows = csv.reader(io.StringIO(text))
    return sum(_count(cell) for row in rows for cell in row)


def _count(cell: str) -> int:
    words = cell.split()
    try:
        return len([float(word) for word in words])
    except ValueError:
        return 1
