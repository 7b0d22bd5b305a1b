"""What the runs of a trial say: validation score, loss, perplexity of running text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from quanta_bench.evaluation import stats
from quanta_bench.report import evidence
from quanta_bench.report.rate_study import Trial
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.cells import Cells
from quanta_bench.statistics.noise import Noise, noise
from quanta_bench.suites.schema import ColumnSpec
from quanta_bench.utils.json_text import finite

BOUND = 1.5
"""A rate is refused if running text is this many times as perplexing as to the base model."""

ByColumn = Mapping[str, Mapping[int, Result]]
"""By column's key, the result of each seed."""


def judge(
    rate: float,
    cells: Cells,
    columns: Sequence[ColumnSpec],
    store: Store,
    base: float | None,
    diverged: str = "",
) -> Trial:
    """The trial of a row at a rate.

    Args:
        rate: the learning rate.
        cells: its runs.
        columns: what the score is the mean of.
        store: where the runs' predictions are.
        base: the base model's perplexity of running text; ``None`` where none is read.
        diverged: how a run diverged, if one did.
    """
    results = cells.everything()
    runs = list(dict.fromkeys(result.run for result in results))
    if diverged:
        return Trial(rate=rate, state="diverged", why=diverged, runs=runs)
    if set(cells.complete) != set(cells.row.seeds):
        return Trial(rate=rate, state="failed", why="not all of its runs finished", runs=runs)
    perplexity = perplexity_of(cells)
    if perplexity is not None and base is None:
        why = "the base model's perplexity is not known"
        return Trial(rate=rate, state="failed", why=why, runs=runs)
    score, error = score_of(cells, columns, store)
    ratio = None if base is None or perplexity is None else perplexity / base
    lost = ratio is not None and not ratio <= BOUND
    return Trial(
        rate=rate,
        state="refused" if lost else "scored",
        why=f"perplexity of running text {ratio:.3g} times the base's" if lost else "",
        score=score,
        standard_error=error,
        loss=finite(stats.mean([_kept_loss(result) for result in results])),
        perplexity=perplexity,
        ratio=ratio,
        steps=sum(result.training.steps for result in cells.results[cells.complete[0]]),
        runs=runs,
    )


def perplexity_of(cells: Cells) -> float | None:
    """Perplexity of running text, the mean over runs; ``None`` where none was read."""
    values = [value for result in cells.everything() for value in result.forgetting.values()]
    return stats.mean(values) if values else None


def score_of(
    cells: Cells, columns: Sequence[ColumnSpec], store: Store
) -> tuple[float, float | None]:
    """The mean over seeds and columns, and its standard error, in the unit of tables.

    Columns of tasks that the source lacks are left out.
    """
    found: dict[str, dict[int, Result]] = {}
    for column in columns:
        by_seed = {
            seed: result
            for seed, results in cells.results.items()
            for result in results
            if column.task in result.tasks
        }
        if by_seed:
            found[column.key] = by_seed
    shown = [column for column in columns if column.key in found]
    means = [
        stats.mean([_value(column, result) for result in found[column.key].values()])
        for column in shown
    ]
    return stats.mean(means), _error(shown, found, store)


def _value(column: ColumnSpec, result: Result) -> float:
    scored = result.tasks[column.task]
    return evidence.scale(scored) * scored.metrics[column.metric or scored.metric]


def _error(columns: Sequence[ColumnSpec], found: ByColumn, store: Store) -> float | None:
    """Standard error of the mean over columns: of seeds and items, or of items for one seed."""
    known = [evidence.evidence(column, found[column.key], store) for column in columns]
    joint = evidence.average(columns, known)
    if joint is not None:
        return finite(noise(joint.scores).standard_error)
    errors = [
        _bound(column, found[column.key]) if one is None else noise(one.scores)
        for column, one in zip(columns, known, strict=True)
    ]
    own = [error.standard_error for error in errors]
    return finite(stats.error_of_average(own, [evidence.items_of(one) for one in columns]))


def _bound(column: ColumnSpec, results: Mapping[int, Result]) -> Noise:
    """The noise of a column without predictions, as perplexities are: an upper bound."""
    tasks = [result.tasks[column.task] for result in results.values()]
    errors = [
        None
        if task.standard_error is None or column.metric not in ("", task.metric)
        else evidence.scale(task) * task.standard_error
        for task in tasks
    ]
    values = [_value(column, result) for result in results.values()]
    return evidence.from_results(values, errors, tasks[0].groups)


def _kept_loss(result: Result) -> float:
    """The validation loss of the checkpoint that was kept."""
    record = result.training
    return next(
        (loss for step, _, loss in record.validations if step == record.best_step), math.nan
    )
