"""From results to a table's numbers, each with its spread over seeds and its error over items."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from quanta_bench.errors import UsageError, did_you_mean
from quanta_bench.evaluation import stats
from quanta_bench.models.meta import Count
from quanta_bench.plugins import METHODS, task_title
from quanta_bench.report import notes
from quanta_bench.report.table import Column, Table, TableRow, Value
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.cells import Cells
from quanta_bench.suites.request import Request
from quanta_bench.suites.schema import ColumnSpec, Suite


def make_table(request: Request, cells: Sequence[Cells], store: Store) -> Table:
    """The table of a request, from whatever results are there."""
    suite, profile = request.suite, request.profile
    everything = [result for cell in cells for result in cell.everything()]
    columns = [_column(spec, everything) for spec in suite.shown_columns]
    rows = [_row(cell, suite, store) for cell in cells]
    chance = _chance(everything, suite)
    return Table(
        # A size of the user's choice does not overwrite the files of the default one.
        name=suite.name if request.size in ("", profile.size) else f"{suite.name}-{request.size}",
        title=suite.title,
        profile=request.profile_name,
        averages=[average.title for average in suite.shown_averages],
        columns=columns,
        rows=([chance] if chance else []) + rows,
        notes=notes.notes(profile, request.size, cells, rows),
    )


def _column(spec: ColumnSpec, results: Sequence[Result]) -> Column:
    scored = next((r.tasks[spec.task] for r in results if spec.task in r.tasks), None)
    title = scored.title if scored else task_title(spec.task)
    return Column(
        key=spec.key,
        task=spec.task,
        title=spec.title or f"{title} {spec.metric}".rstrip(),
        items=scored.items if scored else 0,
    )


def _row(cell: Cells, suite: Suite, store: Store) -> TableRow:
    spec = cell.row.spec
    known = not cell.row.missing
    row = TableRow(
        label=spec.label or spec.method,
        method=spec.method,
        model=cell.row.model.name,
        denominator=cell.row.denominator,
        wanted_seeds=len(cell.row.seeds),
        done_seeds=cell.complete,
        footnote=METHODS.get(spec.method).footnote if known else "",
        missing=cell.row.missing,
    )
    # While no seed is complete, what is there of one is worth seeing.
    seeds = row.done_seeds or sorted(cell.results)
    results = [result for seed in seeds for result in cell.results[seed]]
    if not results:
        return row
    first = results[0].training
    row.trainable = first.trainable_parameters
    count = Count(first.trainable_parameters, first.base_parameters, first.added_parameters)
    row.percent = 100 * count.share(cell.row.denominator)
    lines = {result.run: store.predictions(result.run) for result in results}
    for column in suite.shown_columns:
        scored = {
            seed: result
            for seed in seeds
            for result in cell.results[seed]
            if column.task in result.tasks
        }
        if scored:
            by_seed = {seed: _shown(result, column) for seed, result in scored.items()}
            error = _item_error(column, scored.values(), lines)
            whole = all(_scale(result, column.task) == 1 for result in scored.values())
            row.cells[column.key] = _value(by_seed, error, decimals=2 if whole else 1)
    for average in suite.shown_averages:
        value = _average(row, average.columns or [c.key for c in suite.shown_columns])
        if value is not None:
            row.averages[average.title] = value
    lost = [value for result in results for value in result.forgetting.values()]
    row.perplexity = stats.mean(lost) if lost else None
    return row


def _average(row: TableRow, columns: Sequence[str]) -> Value | None:
    """A row's mean over columns, by seed; ``None`` while one of them is not there."""
    if not all(column in row.cells for column in columns):
        return None
    cells = [row.cells[column] for column in columns]
    shared = [seed for seed in cells[0].seeds if all(seed in cell.seeds for cell in cells)]
    if not shared:
        return None
    by_seed = {seed: stats.mean([cell.seeds[seed] for cell in cells]) for seed in shared}
    errors = [cell.standard_error for cell in cells]
    known = [error for error in errors if error is not None]
    # An average with an unknown part has an unknown error, not a smaller one.
    whole = stats.error_of_average(known) if len(known) == len(errors) else None
    return _value(by_seed, whole)


def _value(by_seed: dict[int, float], error: float | None, *, decimals: int = 1) -> Value:
    values = list(by_seed.values())
    return Value(
        mean=stats.mean(values),
        deviation=stats.deviation(values) if len(values) > 1 else None,
        standard_error=error,
        seeds=by_seed,
        decimals=decimals,
    )


def _scale(result: Result, task: str) -> float:
    return 1.0 if result.tasks[task].kind == "perplexity" else 100.0


def _metric(result: Result, column: ColumnSpec) -> str:
    """The metric of a column in a result.

    Raises:
        UsageError: the task has no such metric.
    """
    found = result.tasks[column.task]
    name = column.metric or found.metric
    if name not in found.metrics:
        raise UsageError(
            f"The task {column.task!r} has no metric {name!r}. {did_you_mean(name, found.metrics)}"
        )
    return name


def _shown(result: Result, column: ColumnSpec) -> float:
    value = result.tasks[column.task].metrics[_metric(result, column)]
    return value * _scale(result, column.task)


def _item_error(
    column: ColumnSpec,
    results: Iterable[Result],
    lines: Mapping[str, Sequence[Mapping[str, Any]]],
) -> float | None:
    """Standard error of a row's mean over items; an item's score is its mean over seeds.

    Seeds that were scored on different items (a varied sample) are independent draws.

    Args:
        column: the column.
        results: one a seed.
        lines: each run's judged items.
    """
    results = list(results)
    groups: dict[str, str] = {}
    # Per seed, each item's score where the metric is one of single items.
    scores: list[dict[str, float | None]] = []
    for result in results:
        own = [line for line in lines[result.run] if line["task"] == column.task]
        groups |= {line["id"]: line["group"] for line in own}
        scores.append({line["id"]: line.get(_metric(result, column)) for line in own})
    # A run knows the error of its task's main metric alone.
    known = [
        found.standard_error
        for found in (result.tasks[column.task] for result in results)
        if found.standard_error is not None and column.metric in ("", found.metric)
    ]
    if any(value is None for one in scores for value in one.values()):
        # F1, a correlation, a perplexity: each run knows its own error. Seeds that are scored on
        # the same items are not independent; their mean is no surer than one of them.
        error = stats.mean(known) if len(known) == len(results) else math.nan
    elif all(one.keys() == scores[0].keys() for one in scores):
        ids = sorted(scores[0])
        values = [stats.mean([one[item] or 0.0 for one in scores]) for item in ids]
        error = stats.clustered_standard_error(values, [groups[item] for item in ids])
    else:
        apart = [
            stats.clustered_standard_error(
                [value or 0.0 for value in one.values()], [groups[item] for item in one]
            )
            for one in scores
        ]
        error = stats.error_of_average(apart)
    return None if math.isnan(error) else error * _scale(results[0], column.task)


def _chance(results: Sequence[Result], suite: Suite) -> TableRow | None:
    cells = {}
    for column in suite.shown_columns:
        scored = next((r.tasks[column.task] for r in results if column.task in r.tasks), None)
        if scored and scored.chance is not None and column.metric in ("", scored.metric):
            cells[column.key] = _level(100 * scored.chance)
    if not cells:
        return None
    row = TableRow(label="Chance", cells=cells)
    for average in suite.shown_averages:
        keys = average.columns or [column.key for column in suite.shown_columns]
        if all(key in cells for key in keys):
            row.averages[average.title] = _level(stats.mean([cells[key].mean for key in keys]))
    return row


def _level(mean: float) -> Value:
    return Value(mean=mean, deviation=None, standard_error=None, seeds={})
