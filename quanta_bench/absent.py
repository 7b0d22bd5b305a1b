"""Columns that a source cannot fill: found before anything is computed, left out of the runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from quanta_bench.errors import MissingDataError
from quanta_bench.methods import METHODS
from quanta_bench.pools import Pools
from quanta_bench.spec import EvaluationSpec, TrainingSpec
from quanta_bench.suite import GridRow
from quanta_bench.task import Split


def without_absent(rows: Sequence[GridRow], pools: Pools) -> list[GridRow]:
    """The rows without the tasks that their source does not have; each such row says why.

    A row needs a task's test items, and its training items where it trains on that task alone.

    Raises:
        MissingDataError: no task is left, or one that is absent belongs to a mixture that is
            trained on, which would be another mixture without it.
        SourceError: data that are there cannot be read.
    """
    reasons = _Reasons(pools)
    return [row if row.missing else _filled(row, reasons) for row in rows]


class _Reasons:
    """Why a source does not have a task; reads each pool once."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._known: dict[tuple[str, str, Split], MissingDataError | None] = {}

    def get(self, task: str, needed: Iterable[tuple[str, Split]]) -> MissingDataError | None:
        """The first failure among the sources and splits that are needed, or ``None``."""
        for source, split in needed:
            key = (task, source, split)
            if key not in self._known:
                self._known[key] = None
                try:
                    self._pools.get(*key)
                except MissingDataError as error:
                    self._known[key] = error
            if (found := self._known[key]) is not None:
                return found
        return None


def _filled(row: GridRow, reasons: _Reasons) -> GridRow:
    trains = METHODS.get(row.spec.method).trains
    absent: dict[str, MissingDataError] = {}
    jobs: list[tuple[TrainingSpec, EvaluationSpec]] = []
    for training, evaluation in row.jobs:
        trained_on = training.tasks if trains else ()
        for task in evaluation.tasks:
            needed: list[tuple[str, Split]] = [(evaluation.source, evaluation.split)]
            if trained_on == (task,):
                needed += [(training.source, "train"), (training.source, "validation")]
            error = reasons.get(task, needed)
            if error is not None:
                absent[task] = error
        left = tuple(task for task in evaluation.tasks if task not in absent)
        for task in trained_on if left else ():
            if task in absent:
                raise absent[task]
        if left:
            jobs.append((training, evaluation.model_copy(update={"tasks": left})))
    if not jobs:
        raise next(iter(absent.values()))
    told = {task: str(error) for task, error in absent.items()}
    return replace(row, jobs=tuple(jobs), absent=told)
