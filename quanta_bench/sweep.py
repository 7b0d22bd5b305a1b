"""Many runs: every job of a grid, one after another, finished ones never repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, RenderableType

from quanta_bench.absent import without_absent
from quanta_bench.errors import BenchError, UsageError
from quanta_bench.methods import METHODS
from quanta_bench.pools import Pools
from quanta_bench.progress import Screen, Silent
from quanta_bench.protocols import check_protocols
from quanta_bench.runner import Job, Runner, normal_form
from quanta_bench.store import Result, Store
from quanta_bench.suite import GridRow


@dataclass
class Cells:
    """The results of one row as far as they are there.

    Attributes:
        row: the row.
        results: by seed, those of its runs that are there: one, or one a task that is trained
            apart.
    """

    row: GridRow
    results: dict[int, list[Result]]

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


def sweep(
    rows: Sequence[GridRow],
    store: Store,
    console: Console,
    draw: Callable[[list[Cells]], RenderableType],
    *,
    fresh: bool = False,
) -> tuple[list[Cells], list[str]]:
    """Compute whatever of a grid is not on disk yet.

    Runs go seed by seed over all rows, so that a table is filled with one seed before any row
    gets its second. A task that the source does not have is left out.

    Args:
        rows: the grid; rows that cannot run in this version stay empty.
        store: where results are and go.
        console: where progress is shown.
        draw: draws the table from what is there.
        fresh: compute every run again.

    Returns:
        The rows with their results, and a message for each run that failed.

    Raises:
        UsageError: the words of a row are off; before any data are read if its protocol is.
        SourceError: the source has none of the tasks, or not what is trained on.
        KeyboardInterrupt: the user stopped. What was finished stays.
    """
    pools = Pools()
    runner = Runner(store, Silent(), pools)
    for row in rows:
        for _, job in [] if row.missing else jobs_of(row):
            check_protocols(normal_form(job.training)[0], job.evaluation)
    console.print("Reading data and looking for finished runs.", style="dim")
    cells = [Cells(row, {}) for row in without_absent(rows, pools)]
    # Rows that come to the same run, as on one small model in place of several, share it.
    wanted: dict[str, list[tuple[Cells, int, Job]]] = {}
    for cell in cells:
        if cell.row.missing:
            continue
        for seed, job in jobs_of(cell.row):
            done = None if fresh else runner.find(job)
            if done is None:
                wanted.setdefault(runner.spelled(job), []).append((cell, seed, job))
            else:
                cell.results.setdefault(seed, []).append(done)
    if not wanted:
        return cells, []
    order = sorted(wanted.values(), key=lambda places: places[0][1])
    weights = [1.0 if METHODS.get(job.training.method).trains else 0.3 for (_, _, job), *_ in order]
    failed: list[str] = []
    with Screen(console, weights, lambda: draw(cells)) as screen:
        runner.reporter = screen
        for places in order:
            first, seed, job = places[0]
            name = job.label + (f", seed {seed}" if len(first.row.seeds) > 1 else "")
            name += f", {', '.join(job.evaluation.tasks)}" if first.row.parts > 1 else ""
            screen.begin(name)
            try:
                result = runner.run(job, fresh=fresh)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from error
            except (BenchError, RuntimeError, MemoryError) as error:
                # The other rows are worth having all the same.
                failed.append(f"{name}: {error}")
                screen.fail()
                continue
            for cell, at, _ in places:
                cell.results.setdefault(at, []).append(result)
            screen.finish()
    return cells, failed
