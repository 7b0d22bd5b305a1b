"""Fill in what is known of a table before its runs are computed."""

from __future__ import annotations

from quanta_bench.costs.plan import Share, share
from quanta_bench.data.pools import Pools
from quanta_bench.errors import MissingDataError
from quanta_bench.models.meta import Counts
from quanta_bench.report.table import Table
from quanta_bench.spec import EvaluationSpec
from quanta_bench.suites.request import Request


class Forecast:
    """Trainable parameters, counted without weights, and the sizes of the test sets.

    Args:
        request: the request for the table.
        pools: the data, shared with the runs so that they are read only once.
    """

    def __init__(self, request: Request, pools: Pools) -> None:
        self._request = request
        self._pools = pools
        self._counts = Counts()
        self._shares: dict[int, Share] = {}
        self._items: dict[str, int] = {}

    def fill(self, table: Table) -> Table:
        """The table with these numbers filled in where they are missing."""
        columns = [
            column if column.items else column.model_copy(update={"items": self._size(column.task)})
            for column in table.columns
        ]
        rows = list(table.rows)
        # The chance level, if a task has one, comes before the rows.
        first = len(rows) - len(self._request.grid)
        for index, row in enumerate(rows):
            if index >= first and row.trainable is None:
                count = self._share(index - first)
                update = {"trainable": count.trainable, "percent": count.percent}
                rows[index] = row.model_copy(update=update)
        return table.model_copy(update={"columns": columns, "rows": rows})

    def _share(self, number: int) -> Share:
        """The trainable parameters of a row, by its index in the grid."""
        if number not in self._shares:
            try:
                self._shares[number] = share(self._request.grid[number], self._counts)
            except (Exception, SystemExit):
                # A method that fails here also fails in its run, which reports and logs it.
                self._shares[number] = Share()
        return self._shares[number]

    def _size(self, task: str) -> int:
        """Number of items scored of a task; 0 if no row scores it or the source lacks it."""
        if task not in self._items:
            specs = (
                evaluation
                for row in self._request.grid
                if not row.missing
                for _, evaluation in row.jobs
                if task in evaluation.tasks
            )
            self._items[task] = self._scored(task, next(specs, None))
        return self._items[task]

    def _scored(self, task: str, evaluation: EvaluationSpec | None) -> int:
        if evaluation is None:
            return 0
        try:
            size = len(self._pools.get(task, evaluation.source, evaluation.split).examples)
        except MissingDataError:
            return 0
        return size if evaluation.items is None else min(size, evaluation.items)
