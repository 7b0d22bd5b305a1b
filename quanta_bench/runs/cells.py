"""The results of a grid's rows, as far as they are there."""

from __future__ import annotations

from dataclasses import dataclass

from quanta_bench.results.records import Result
from quanta_bench.spec import Job
from quanta_bench.suites.grid import GridRow


@dataclass
class Cells:
    """The results of one row as far as they are there.

    Attributes:
        row: the row.
        results: by seed, those of its runs that are there: one, or one a task that is trained
            apart.
        by_spec: whether results were found by their specs alone, without comparing the content of
            model and data.
    """

    row: GridRow
    results: dict[int, list[Result]]
    by_spec: bool = False

    @property
    def complete(self) -> list[int]:
        """The seeds of which every run is there."""
        return sorted(
            seed for seed, results in self.results.items() if len(results) == self.row.parts
        )

    def everything(self) -> list[Result]:
        """All results, seed by seed."""
        return [result for results in self.results.values() for result in results]


def jobs_of(row: GridRow) -> list[tuple[int, Job]]:
    """A row's jobs, each with its seed."""
    return [
        (row.seeds[number // row.parts], Job(row.spec.label, training, evaluation))
        for number, (training, evaluation) in enumerate(row.jobs)
    ]
