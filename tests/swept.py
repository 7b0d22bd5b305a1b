"""A sweep, and what it left."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from quanta_bench.results.store import Store
from quanta_bench.runs.sweep import sweep
from quanta_bench.suites.grid import GridRow


class Swept:
    """Runs a sweep; what it gave, and what it showed."""

    def __init__(self, rows: list[GridRow], folder: Path, **options: Any) -> None:
        console = Console(file=io.StringIO(), width=200)
        self.cells, self.failed = sweep(rows, Store(folder), console, lambda _: "", **options)
        self.shown: str = console.file.getvalue()  # type: ignore[attr-defined]

    @property
    def complete(self) -> bool:
        return all(cell.complete == list(cell.row.seeds) for cell in self.cells)

    @property
    def numbers(self) -> dict[str, list[float]]:
        """What each run came to, by its name: scores, and losses of its training.

        Other processors round the last digits of a product of matrices otherwise.
        """
        assert self.failed == []
        results = [result for cell in self.cells for result in cell.everything()]
        return {
            result.run: [
                *(value for task in result.tasks.values() for value in task.metrics.values()),
                *result.training.losses,
            ]
            for result in results
        }
