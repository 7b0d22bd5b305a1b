"""Detect tasks that a source lacks before anything is computed, and leave them out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from quanta_bench.data.pools import Pools
from quanta_bench.errors import MissingDataError
from quanta_bench.runs.identity import PlannedRow, PlannedRun
from quanta_bench.spec import EvaluationSpec, TrainingSpec
from quanta_bench.task import Example, Split


def without_absent(rows: Sequence[PlannedRow], pools: Pools) -> list[PlannedRow]:
    """The rows without the tasks that their source lacks; affected rows record the reason.

    A row requires a task's test items, and its training items if it trains on that task alone. If
    the two come from different sources, test items may be among the training items; such a task is
    left out too.

    Raises:
        MissingDataError: no task remains, or a task of a mixture has no training items, without
            which it would be another mixture.
        SourceError: data that exist cannot be read.
    """
    reasons = _Reasons(pools)
    return [row if row.row.missing else _restrict(row, reasons) for row in rows]


class _Reasons:
    """Why sources lack tasks; each pool is read once."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._errors: dict[tuple[str, str, Split], MissingDataError | None] = {}

    def missing(self, task: str, required: Iterable[tuple[str, Split]]) -> MissingDataError | None:
        """The first failure among the required sources and splits, or ``None``."""
        for source, split in required:
            key = (task, source, split)
            if key not in self._errors:
                self._errors[key] = None
                try:
                    self._pools.get(*key)
                except MissingDataError as absent:
                    self._errors[key] = absent
            if (error := self._errors[key]) is not None:
                return error
        return None

    def leaked(self, task: str, trained: str, scored: str, split: Split) -> MissingDataError | None:
        """An error if test items of one source are training items of another, or ``None``.

        Within one source, a task's own splits prevent that.
        """
        splits: tuple[Split, ...] = ("train", "validation")
        if self.missing(task, [(trained, split) for split in splits]) is not None:
            return None
        groups = set[str]().union(
            *(_groups(self._pools.get(task, trained, name).examples) for name in splits)
        )
        test = self._pools.get(task, scored, split).examples
        shared = sum(example.group in groups for example in test)
        if not shared:
            return None
        return MissingDataError(
            f"{shared:,} of the {len(test):,} {split} items of {task} in {scored!r} are among its "
            f"training items in {trained!r}; train and score it from one source."
        )


def _groups(examples: Iterable[Example]) -> set[str]:
    return {example.group for example in examples}


def _training_splits(spec: TrainingSpec) -> list[tuple[str, Split]]:
    return [(spec.source, "train"), (spec.source, "validation")]


def _restrict(planned: PlannedRow, reasons: _Reasons) -> PlannedRow:
    """A row without the tasks that its source lacks."""
    absent: dict[str, MissingDataError] = {}
    runs: list[tuple[int, PlannedRun]] = []
    jobs: list[tuple[TrainingSpec, EvaluationSpec]] = []
    for (seed, run), (spec, _) in zip(planned.runs, planned.row.jobs, strict=True):
        training, evaluation = run.training, run.evaluation
        trained = training.tasks if run.method.trains else ()
        for task in evaluation.tasks:
            required: list[tuple[str, Split]] = [(evaluation.source, evaluation.split)]
            if trained == (task,):
                required += _training_splits(training)
            error = reasons.missing(task, required)
            if error is None and task in trained and training.source != evaluation.source:
                error = reasons.leaked(task, training.source, evaluation.source, evaluation.split)
            if error is not None:
                absent[task] = error
        present = tuple(task for task in evaluation.tasks if task not in absent)
        for task in trained if present else ():
            error = reasons.missing(task, _training_splits(training))
            if error is not None:
                raise error
        if present:
            run = run if present == evaluation.tasks else run.scoring(present)
            runs.append((seed, run))
            jobs.append((spec, run.evaluation))
    if not runs:
        raise next(iter(absent.values()))
    if not absent:
        return planned
    row = replace(
        planned.row,
        jobs=tuple(jobs),
        absent={task: str(error) for task, error in absent.items()},
    )
    return PlannedRow(row, tuple(runs))
