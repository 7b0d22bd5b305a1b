"""Whether a table's columns can be filled: their metrics, known before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from quanta_bench.data.pools import TASKS, find_task
from quanta_bench.errors import UsageError, did_you_mean
from quanta_bench.spec import EvaluationSpec, Normaliser
from quanta_bench.suites.schema import ColumnSpec
from quanta_bench.task import Task


def metrics_of(task: Task, protocol: str) -> tuple[str, ...]:
    """The metrics that a task's results have under a protocol, its main one first."""
    names = [task.metric, *task.metrics]
    if task.kind == "perplexity":
        names += ["perplexity", "word_perplexity"]
    elif task.chooses and protocol in ("choice-text", "choice-label"):
        names += [f"{task.metric}/{normaliser}" for normaliser in get_args(Normaliser)]
    return tuple(dict.fromkeys(names))


def check_metrics(columns: Sequence[ColumnSpec], evaluations: Iterable[EvaluationSpec]) -> None:
    """Refuse a column whose task has no such metric; tasks that are not registered pass.

    Args:
        columns: the columns.
        evaluations: of the runs that are to fill them.

    Raises:
        UsageError: names the column's metric and the nearest ones.
    """
    protocols: dict[str, set[str]] = {}
    for evaluation in evaluations:
        for reference in evaluation.tasks:
            protocols.setdefault(reference, set()).add(evaluation.protocol)
    for column in columns:
        if not column.metric or column.task.partition(":")[0] not in TASKS:
            continue
        task = find_task(column.task)
        for protocol in sorted(protocols.get(column.task, ())):
            known = metrics_of(task, protocol)
            if column.metric not in known:
                raise UsageError(
                    f"The task {column.task!r} has no metric {column.metric!r}. "
                    f"{did_you_mean(column.metric, known)}"
                )
