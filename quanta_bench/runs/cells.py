"""The results of a grid's rows, as far as they have been computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quanta_bench.results.records import Result
from quanta_bench.suites.grid import GridRow

if TYPE_CHECKING:
    from quanta_bench.runs.contents import Contents


@dataclass
class Cells:
    """The results of one row, as far as they have been computed.

    Attributes:
        row: the row.
        results: finished runs by seed: one, or one per task if tasks are trained separately.
        by_spec: whether results were matched by their specs, without comparing the content of
            model and data, except that of the places of the user's own in `contents`.
        contents: what of such places was compared, could not be, and has changed.
        failed: why runs have no result, a sentence each.
    """

    row: GridRow
    results: dict[int, list[Result]]
    by_spec: bool = False
    contents: Contents | None = None
    failed: list[str] = field(default_factory=list)

    @property
    def complete(self) -> list[int]:
        """The seeds whose runs are all finished."""
        return sorted(
            seed for seed, results in self.results.items() if len(results) == self.row.parts
        )

    def add(self, seed: int, result: Result) -> None:
        """Add a finished run."""
        self.results.setdefault(seed, []).append(result)

    def everything(self) -> list[Result]:
        """All results, seed by seed."""
        return [result for results in self.results.values() for result in results]
