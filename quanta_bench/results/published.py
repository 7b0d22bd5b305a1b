"""The papers' own tables, transcribed, to compare with measured results."""

from __future__ import annotations

import csv
from importlib.resources import files
from pathlib import Path

from rich.table import Table

from quanta_bench.errors import BenchError


def published_rows(name: str) -> list[dict[str, str]]:
    """The rows of a published table, as printed.

    Raises:
        BenchError: no such table was transcribed.
    """
    # In a checkout the figures lie in results/paper; a wheel carries them inside the package.
    checkout = Path(__file__).parents[2] / "results" / "paper" / f"{name}.csv"
    packed = Path(str(files("quanta_bench") / "published" / f"{name}.csv"))
    path = packed if packed.is_file() else checkout
    if not path.is_file():
        raise BenchError(f"The published {name} is not transcribed in this version.")
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def published_table(name: str) -> Table:
    """A published table as Rich draws it."""
    rows = published_rows(name)
    grid = Table(title=f"As published ({name} of the QuanTA paper)", title_justify="left")
    for key in rows[0]:
        grid.add_column(key.replace("_", " "))
    for row in rows:
        grid.add_row(*(value or "–" for value in row.values()))
    return grid
