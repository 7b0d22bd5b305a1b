"""Compute a table's numbers from results, with their spread over seeds and error over items."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd

from quanta_bench.errors import UsageError, did_you_mean
from quanta_bench.evaluation import stats
from quanta_bench.models.meta import Count
from quanta_bench.plugins import METHODS, task_title
from quanta_bench.references import apart
from quanta_bench.report import conclusions, evidence, failed, notes, training_loss
from quanta_bench.report.constant_answers import constant_notes, constant_row
from quanta_bench.report.found import found_by_specs
from quanta_bench.report.screen_notes import CAVEATS
from quanta_bench.report.table import Column, Cost, Table, TableRow, Value
from quanta_bench.results import canary, frames
from quanta_bench.results.provenance import stale
from quanta_bench.results.records import Result, TaskResult
from quanta_bench.results.store import Store
from quanta_bench.runs.cells import Cells
from quanta_bench.suites.request import Request
from quanta_bench.suites.schema import ColumnSpec, Suite

STALE = "†"
"""Marks the label of a row that was computed by different code."""


def make_table(
    request: Request, cells: Sequence[Cells], store: Store, *, marked: bool = True
) -> Table:
    """The table of a request, from the results so far.

    Args:
        request: what is asked for.
        cells: each row's results.
        store: where predictions are.
        marked: mark what differs, with notes that say how. A figure shows no marks.
    """
    suite, profile = request.suite, request.profile
    everything = [result for cell in cells for result in cell.everything()]
    columns = _columns(suite.shown_columns, everything)
    rows = [_row(cell) for cell in cells]
    found = _fill(rows, cells, suite, store)
    for row, cell in zip(rows, cells, strict=True):
        row.marks = conclusions.row_marks(row, cell)
    levels = [
        _chance(everything, suite),
        constant_row(suite.shown_columns, suite.shown_averages, everything, store),
    ]
    untouched = {column.key: column.title for column in columns if column.untouched}
    compared = training_loss.notes(columns)
    if marked:
        compared = conclusions.mark(rows, found, untouched) + compared
    several = len({row.model for row in rows}) > 1
    constant = constant_notes(
        [
            (conclusions.row_name(row.label, row.model, several), cell.everything())
            for row, cell in zip(rows, cells, strict=True)
        ],
        suite.shown_columns,
        store,
    )
    return Table(
        name=request.file_name,
        title=suite.title,
        profile=request.profile_name,
        averages=[average.title for average in suite.shown_averages],
        columns=columns,
        rows=[level for level in levels if level] + rows,
        notes=_with_caveats(
            notes.notes(profile, request.size, cells, rows, compared),
            [
                *failed.causes(rows),
                *failed.halved(rows, cells),
                *_stale_rows(rows),
                *found_by_specs(cells),
                *_without_errors(rows, columns),
                *canary.notes(everything, canary.of_folder(store.root)),
                *constant,
            ],
        ),
    )


def _with_caveats(by_heading: dict[str, list[str]], caveats: list[str]) -> dict[str, list[str]]:
    """Notes with additional caveats, which come first."""
    both = [*caveats, *by_heading.get(CAVEATS, [])]
    return by_heading | ({CAVEATS: both} if both else {})


def _columns(specs: Sequence[ColumnSpec], results: Sequence[Result]) -> list[Column]:
    scored = {task: found for result in reversed(results) for task, found in result.tasks.items()}
    # Two files of a user's own may have one name.
    titles = apart(
        {
            spec.task: scored[spec.task].title if spec.task in scored else task_title(spec.task)
            for spec in specs
        }
    )
    return [_column(spec, titles[spec.task], results) for spec in specs]


def _column(spec: ColumnSpec, title: str, results: Sequence[Result]) -> Column:
    scored = next((r.tasks[spec.task] for r in results if spec.task in r.tasks), None)
    return Column(
        key=spec.key,
        task=spec.task,
        title=spec.title or f"{title} {spec.metric}".rstrip(),
        items=_items(spec, results),
        untouched=spec.untouched,
        lower_is_better=spec.of_training or (scored is not None and scored.kind == "perplexity"),
    )


def _items(spec: ColumnSpec, results: Sequence[Result]) -> int:
    """Number of items behind a column's values; 0 as long as there is none."""
    of_task = [result for result in results if spec.task in result.tasks]
    if spec.of_training:
        return max(map(training_loss.items, of_task), default=0)
    return of_task[0].tasks[spec.task].items if of_task else 0


def _row(cell: Cells) -> TableRow:
    """A row without its cells."""
    spec = cell.row.spec
    known = not cell.row.missing
    row = TableRow(
        label=spec.label or spec.method,
        method=spec.method,
        model=cell.row.model.title,
        denominator=cell.row.denominator,
        wanted_seeds=len(cell.row.seeds),
        done_seeds=cell.complete,
        footnote=METHODS.get(spec.method).footnote if known else "",
        missing=cell.row.missing,
        failed=cell.failed,
    )
    results = [result for _, result in _shown(cell)]
    if not results:
        return row
    first = results[0].training
    row.trainable = first.trainable_parameters
    count = Count(first.trainable_parameters, first.base_parameters, first.added_parameters)
    row.percent = 100 * count.share(cell.row.denominator)
    row.runs = list(dict.fromkeys(result.run for result in results))
    lost = [value for result in results for value in result.forgetting.values()]
    row.perplexity = stats.mean(lost) if lost else None
    row.cost = _cost(results, len({seed for seed, _ in _shown(cell)}))
    row.stale = list(dict.fromkeys(change for result in results for change in stale(result)))
    return row


def _cost(results: Sequence[Result], seeds: int) -> Cost:
    """What the results of so many seeds took."""
    # Two runs may score one training.
    by_id = {result.training.id: result.training for result in results}
    trained = [training for training in by_id.values() if training.steps]
    seconds = sum(record.seconds for record in trained)
    peaks = [r.peak_memory_bytes for r in trained if r.peak_memory_bytes is not None]
    return Cost(
        training_seconds=_by_seed([record.seconds for record in trained], seeds),
        scoring_seconds=sum(result.evaluation_seconds for result in results) / seeds,
        tokens_per_second=sum(r.tokens for r in trained) / seconds if seconds else None,
        peak_memory_bytes=max(peaks, default=None),
        adapter_bytes=_by_seed([record.adapter_bytes for record in trained], seeds),
        joules=_by_seed([record.joules for record in trained], seeds),
    )


def _by_seed(values: Sequence[float | None], seeds: int) -> float | None:
    """The sum of a row's trainings by seed; ``None`` without one, or where one is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) / seeds if known and len(known) == len(values) else None


def _shown(cell: Cells) -> list[tuple[int, Result]]:
    """The results of a row that its cells show, each with its seed."""
    # While no seed is complete, partial results are shown.
    seeds = cell.complete or sorted(cell.results)
    return [(seed, result) for seed in seeds for result in cell.results[seed]]


def _fill(
    rows: Sequence[TableRow], cells: Sequence[Cells], suite: Suite, store: Store
) -> dict[tuple[int, str], evidence.Evidence]:
    """Compute the cells and averages of all rows; returns what they rest on.

    The evidence is by row's number and column's key or average's heading.
    """
    found: dict[tuple[int, str], evidence.Evidence] = {}
    runs = {
        (number, seed, result.run): result
        for number, cell in enumerate(cells)
        for seed, result in _shown(cell)
    }
    values = _values(runs, suite.shown_columns)
    by_key = {column.key: column for column in suite.shown_columns}
    by_cell = values.groupby(["row", "column"], sort=False)
    statistics = by_cell["value"].agg(["mean", "std"]).to_dict("index")
    for name, group in by_cell:
        number, key = cast("tuple[int, str]", name)
        scored = [runs[number, seed, run] for seed, run in zip(group.seed, group.run, strict=True)]
        mean, deviation = statistics[number, key].values()
        error = _item_error(by_key[key], scored, store)
        if error is None:
            rows[number].without_error.append(key)
        rests_on = evidence.evidence(by_key[key], dict(zip(group.seed, scored, strict=True)), store)
        value = Value(
            mean=mean,
            deviation=None if math.isnan(deviation) else deviation,
            standard_error=_known(error),
            seeds=dict(zip(group.seed, group.value, strict=True)),
            decimals=evidence.decimals(by_key[key], scored),
            groups=max(_groups(by_key[key], result) for result in scored),
        )
        rows[number].cells[key] = value
        if rests_on is not None:
            found[number, key] = rests_on
            value.seed_errors = evidence.own_errors(rests_on)
        else:
            _bound(value, rows[number], by_key[key], scored)
    by_seed = values.pivot(index=["row", "seed"], columns="column", values="value")
    for average in suite.shown_averages:
        keys = average.columns
        # An average over fewer columns would be a different number.
        means = by_seed.reindex(columns=keys).dropna().mean(axis="columns")
        for row, of_seeds in means.groupby(level="row"):
            number = cast(int, row)
            of = {key: evidence.items_of(by_key[key]) for key in keys}
            value = _average(rows[number], of, of_seeds)
            value.groups = sum({of[key]: rows[number].cells[key].groups for key in keys}.values())
            rows[number].averages[average.title] = value
            rests_on = evidence.average(
                [by_key[key] for key in keys], [found.get((number, key)) for key in keys]
            )
            if rests_on is not None:
                found[number, average.title] = rests_on
                value.seed_errors = evidence.own_errors(rests_on)
            else:
                _bound_average(value, [rows[number].cells[key] for key in keys], [*of.values()])
    _set_margins(rows, found)
    return found


def _groups(column: ColumnSpec, result: Result) -> int:
    """Number of groups of related items behind a result's value: of a training, its steps."""
    if column.of_training:
        return len(training_loss.losses(result))
    return result.tasks[column.task].groups


def _set_margins(
    rows: Sequence[TableRow], found: Mapping[tuple[int, str], evidence.Evidence]
) -> None:
    """Give each value that rests on predictions its interval."""
    fixed = {n for n, row in enumerate(rows) if not row.missing and not evidence.trains(row.method)}
    for key in dict.fromkeys(key for _, key in found):
        of_key = {number: one for (number, name), one in found.items() if name == key}
        for number, half in evidence.own_margins(of_key, fixed).items():
            row = rows[number]
            (row.cells.get(key) or row.averages[key]).margin = half


def _bound(value: Value, row: TableRow, column: ColumnSpec, results: Sequence[Result]) -> None:
    """Give a value the interval that results allow without predictions."""
    tasks = [result.tasks[column.task] for result in results]
    errors = {
        seed: evidence.scale(task) * task.standard_error
        for seed, task in zip(value.seeds, tasks, strict=True)
        if task.standard_error is not None and column.metric in ("", task.metric)
    }
    value.seed_errors = errors
    noise = evidence.from_results(
        list(value.seeds.values()), [errors.get(seed) for seed in value.seeds], tasks[0].groups
    )
    value.margin = evidence.margin(noise)
    if value.margin is not None and len(tasks) > 1:
        row.bounds.append(column.key)


def _bound_average(value: Value, columns: Sequence[Value], of: Sequence[Hashable]) -> None:
    """Give an average the interval that its columns allow without predictions.

    Args:
        value: the average.
        columns: a row's values in its columns.
        of: what the items of each are.
    """
    for seed in value.seeds:
        known = [column.seed_errors[seed] for column in columns if seed in column.seed_errors]
        if len(known) == len(columns):
            value.seed_errors[seed] = stats.error_of_average(known, of)
    # Each column has a mean of its own, which costs a degree of freedom.
    noise = evidence.from_results(
        list(value.seeds.values()),
        [value.seed_errors.get(seed) for seed in value.seeds],
        value.groups - len(set(of)) + 1,
    )
    value.margin = evidence.margin(noise)


def _values(
    runs: Mapping[tuple[int, int, str], Result], columns: Sequence[ColumnSpec]
) -> pd.DataFrame:
    """The values of all cells, one line per row, column and seed, in percent for fractions.

    Returns:
        The columns row, seed, run, column, value; rows and columns in the table's order.

    Raises:
        UsageError: a task has no such metric as a column names.
    """
    for column in columns:
        for result in runs.values():
            if column.task in result.tasks and not column.of_training:
                _metric(result.tasks[column.task], column)
    requested = pd.DataFrame(list(runs), columns=["row", "seed", "run"])
    named = pd.DataFrame(
        [(column.key, column.task, column.metric) for column in columns],
        columns=["column", "task", "named"],
    )
    results = {result.run: result for result in runs.values()}.values()
    measured = pd.concat([frames.metrics(results), training_loss.frame(results)])
    values = requested.merge(named, how="cross").merge(measured, on=["run", "task"])
    values = values[(values.metric == values.named) | ((values.named == "") & values.main)]
    scale = np.where(values.kind.isin(["perplexity", training_loss.KIND]), 1.0, 100.0)
    return values.assign(value=values.value * scale)[["row", "seed", "run", "column", "value"]]


def _average(row: TableRow, of: Mapping[str, Hashable], by_seed: pd.Series[float]) -> Value:
    """A row's average over columns, given with what the items of each are."""
    errors = [row.cells[key].standard_error for key in of]
    known = [error for error in errors if error is not None]
    return Value(
        mean=by_seed.mean(),
        deviation=by_seed.std() if len(by_seed) > 1 else None,
        # An average with an unknown part has an unknown error, not a smaller one.
        standard_error=(
            stats.error_of_average(known, [*of.values()]) if len(known) == len(errors) else None
        ),
        seeds=dict(zip(by_seed.index.get_level_values("seed"), by_seed, strict=True)),
        decimals=max(row.cells[key].decimals for key in of),
    )


def _metric(scored: TaskResult, column: ColumnSpec) -> str:
    """The metric of a column in a task's scores.

    Raises:
        UsageError: the task has no such metric.
    """
    name = column.metric or scored.metric
    if name not in scored.metrics:
        raise UsageError(
            f"The task {column.task!r} has no metric {name!r}. {did_you_mean(name, scored.metrics)}"
        )
    return name


def _item_error(column: ColumnSpec, results: Sequence[Result], store: Store) -> float | None:
    """Standard error of a row's mean over items; an item's score is its mean over seeds.

    Seeds that were scored on different items (a varied sample) are independent draws.

    Args:
        column: the column.
        results: one per seed.
        store: where their predictions are stored.

    Returns:
        The error in the table's unit; NaN if undefined, as with a single group; ``None`` if the
        predictions it needs are not stored.
    """
    if column.of_training:
        return training_loss.error(results)
    tasks = [result.tasks[column.task] for result in results]
    scale = evidence.scale(tasks[0])
    # A run records only the error of its task's main metric.
    own = [
        math.nan
        if task.standard_error is None or column.metric not in ("", task.metric)
        else task.standard_error
        for task in tasks
    ]
    if len(results) == 1 and column.metric in ("", tasks[0].metric):
        return scale * own[0]
    stored = [evidence.stored_items(result, store).get(column.task) for result in results]
    scores = [items for items in stored if items is not None]
    if len(scores) < len(results):
        return None
    columns = [
        items.scores.get(_metric(task, column)) for items, task in zip(scores, tasks, strict=True)
    ]
    known = [values for values in columns if values is not None]
    if len(known) < len(columns):
        # F1, a correlation, a perplexity: each run has its own error. Seeds scored on the
        # same items are not independent; their mean is no more certain than one of them.
        return scale * stats.mean(own)
    if all(items.ids == scores[0].ids for items in scores):
        return scale * stats.clustered_standard_error(
            np.mean(known, axis=0).tolist(), scores[0].groups
        )
    by_seed = [
        stats.clustered_standard_error(values.tolist(), items.groups)
        for values, items in zip(known, scores, strict=True)
    ]
    return scale * stats.error_of_average(by_seed)


def _known(error: float | None) -> float | None:
    return None if error is None or math.isnan(error) else error


def _without_errors(rows: Iterable[TableRow], columns: Sequence[Column]) -> list[str]:
    """A note on the numbers without an error because predictions are not stored."""
    titles = {column.key: column.title for column in columns}
    affected: dict[str, list[str]] = {}
    for row in rows:
        if row.without_error:
            shown = [titles[key] for key in row.without_error]
            every = len(shown) == len(row.cells)
            affected.setdefault("" if every else f" in {', '.join(shown)}", []).append(row.label)
    return [
        f"No standard error over items of {', '.join(labels)}{where}: this needs the predictions "
        "of each seed, which are not stored here."
        for where, labels in affected.items()
    ]


def _stale_rows(rows: Sequence[TableRow]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    filled = [row for row in rows if row.cells]
    for row in filled:
        if row.stale:
            reasons.setdefault(", ".join(row.stale), []).append(row.label)
    if not reasons:
        return []
    listed = "; ".join(
        f"{'all rows' if len(labels) == len(filled) else ', '.join(labels)} ({why})"
        for why, labels in reasons.items()
    )
    return [
        f"{STALE} Stale, computed by another version of the code: {listed}. --fresh stale computes "
        "these rows again."
    ]


def _chance(results: Sequence[Result], suite: Suite) -> TableRow | None:
    cells = {}
    for column in suite.shown_columns:
        scored = next((r.tasks[column.task] for r in results if column.task in r.tasks), None)
        if scored and scored.chance is not None and column.metric in ("", scored.metric):
            cells[column.key] = Value.level(100 * scored.chance)
    if not cells:
        return None
    row = TableRow(label="Chance", cells=cells)
    for average in suite.shown_averages:
        keys = average.columns
        if all(key in cells for key in keys):
            row.averages[average.title] = Value.level(stats.mean([cells[key].mean for key in keys]))
    return row
