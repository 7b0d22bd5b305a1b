"""Columns that a source cannot fill: found before anything is computed, left out of the runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from quanta_bench.data.pools import Pools
from quanta_bench.errors import MissingDataError
from quanta_bench.plugins import METHODS
from quanta_bench.spec import EvaluationSpec, TrainingSpec
from quanta_bench.suites.grid import GridRow
from quanta_bench.task import Example, Split


def without_absent(rows: Sequence[GridRow], pools: Pools) -> list[GridRow]:
    """The rows without the tasks that their source does not have; each such row says why.

    A row needs a task's test items, and its training items where it trains on that task alone.
    Where the two come from different sources, test items may be among those that are trained on:
    such a task counts as absent too.

    Raises:
        MissingDataError: no task is left, or the training items of one are absent from a
            mixture, which would be another mixture without them.
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

    def shared(self, task: str, trained: str, scored: str, split: Split) -> MissingDataError | None:
        """That items of one source's test split are in another's training rows, or ``None``.

        Within one source a task's own splits see to that.
        """
        if self.get(task, [(trained, "train"), (trained, "validation")]) is not None:
            return None
        parts: tuple[Split, ...] = ("train", "validation")
        seen = set[str]().union(
            *(_groups(self._pools.get(task, trained, p).examples) for p in parts)
        )
        test = self._pools.get(task, scored, split).examples
        both = sum(example.group in seen for example in test)
        if not both:
            return None
        return MissingDataError(
            f"{both:,} of the {len(test):,} {split} items of {task} in {scored!r} are among its "
            f"training items in {trained!r}; train and score it from one source."
        )


def _groups(examples: Iterable[Example]) -> set[str]:
    return {example.group for example in examples}


def _of_training(spec: TrainingSpec) -> list[tuple[str, Split]]:
    return [(spec.source, "train"), (spec.source, "validation")]


def _filled(row: GridRow, reasons: _Reasons) -> GridRow:
    trains = METHODS.get(row.spec.method).trains
    absent: dict[str, MissingDataError] = {}
    jobs: list[tuple[TrainingSpec, EvaluationSpec]] = []
    for training, evaluation in row.jobs:
        trained_on = training.tasks if trains else ()
        for task in evaluation.tasks:
            needed: list[tuple[str, Split]] = [(evaluation.source, evaluation.split)]
            if trained_on == (task,):
                needed += _of_training(training)
            error = reasons.get(task, needed)
            if error is None and task in trained_on and training.source != evaluation.source:
                error = reasons.shared(task, training.source, evaluation.source, evaluation.split)
            if error is not None:
                absent[task] = error
        left = tuple(task for task in evaluation.tasks if task not in absent)
        for task in trained_on if left else ():
            lacking = reasons.get(task, _of_training(training))
            if lacking is not None:
                raise lacking
        if left:
            jobs.append((training, evaluation.model_copy(update={"tasks": left})))
    if not jobs:
        raise next(iter(absent.values()))
    told = {task: str(error) for task, error in absent.items()}
    return replace(row, jobs=tuple(jobs), absent=told)
