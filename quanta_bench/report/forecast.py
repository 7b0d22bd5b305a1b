"""What a table will show of its rows and columns before their runs are computed."""

from __future__ import annotations

from quanta_bench.costs.plan import Share, share
from quanta_bench.data.pools import Pools
from quanta_bench.errors import MissingDataError
from quanta_bench.models.meta import Counts
from quanta_bench.report.table import Table
from quanta_bench.spec import EvaluationSpec
from quanta_bench.suites.request import Request


class Forecast:
    """Trained parameters, counted without weights, and numbers of items of the test sets.

    Args:
        request: what the table is of.
        pools: the data, read once for the forecast and the runs.
    """

    def __init__(self, request: Request, pools: Pools) -> None:
        self._request = request
        self._pools = pools
        self._counts = Counts()
        self._shares: dict[int, Share] = {}
        self._items: dict[str, int] = {}

    def fill(self, table: Table) -> Table:
        """The table with these numbers where it has none yet."""
        columns = [
            column if column.items else column.model_copy(update={"items": self._size(column.task)})
            for column in table.columns
        ]
        rows = list(table.rows)
        # The chance level, where a task has one, stands before the rows.
        first = len(rows) - len(self._request.grid)
        for place, row in enumerate(rows):
            if place >= first and row.trainable is None:
                count = self._share(place - first)
                update = {"trainable": count.trainable, "percent": count.percent}
                rows[place] = row.model_copy(update=update)
        return table.model_copy(update={"columns": columns, "rows": rows})

    def _share(self, number: int) -> Share:
        """The trained parameters of a row, by its number in the grid."""
        if number not in self._shares:
            try:
                self._shares[number] = share(self._request.grid[number], self._counts)
            except (Exception, SystemExit):
                # A method that fails here fails in its run too, where it is named and logged.
                self._shares[number] = Share()
        return self._shares[number]

    def _size(self, task: str) -> int:
        """Items that a run scores of a task; 0 if no row scores it or the source lacks it."""
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
