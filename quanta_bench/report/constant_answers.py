"""The row of the best constant answer, and rows that answer every item alike."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from quanta_bench.report.evidence import stored_items
from quanta_bench.report.table import TableRow, Value
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.statistics import answers
from quanta_bench.suites.schema import AverageSpec, ColumnSpec

LABEL = "Best constant"
CHOOSES = ("choice", "classify")


def constant_row(
    columns: Sequence[ColumnSpec],
    averages: Sequence[AverageSpec],
    results: Sequence[Result],
    store: Store,
) -> TableRow | None:
    """The best score of one answer to every item, from the right answers of the scored items.

    For choices among texts of the item's own, an answer is a position.

    Returns:
        ``None`` if no column has choices whose predictions are stored.
    """
    cells = {}
    for column in columns:
        value = _best(column, results, store)
        if value is not None:
            cells[column.key] = Value.level(100 * value)
    if not cells:
        return None
    row = TableRow(label=LABEL, cells=cells)
    for average in averages:
        keys = average.columns
        if all(key in cells for key in keys):
            mean = sum(cells[key].mean for key in keys) / len(keys)
            row.averages[average.title] = Value.level(mean)
    return row


def _best(column: ColumnSpec, results: Sequence[Result], store: Store) -> float | None:
    right: dict[str, object] = {}
    metric = column.metric
    for result in results:
        scored = result.tasks.get(column.task)
        if scored is None or scored.kind not in CHOOSES:
            continue
        metric = metric or scored.metric
        items = stored_items(result, store).get(column.task)
        for name, gold in zip(items.ids, items.gold, strict=True) if items else ():
            if gold is not None:
                right[name] = gold
    if not right or metric is None:
        return None
    gold = list(right.values())
    # A correlation's right answers are numbers, of which no constant is any better.
    labels = gold if metric not in ("pearson", "spearman") else gold[:1]
    try:
        return answers.best_constant(labels, partial(answers.constant_metric, metric, gold))[1]
    except ValueError:
        return None


def constant_notes(
    rows: Sequence[tuple[str, Sequence[Result]]], columns: Sequence[ColumnSpec], store: Store
) -> list[str]:
    """Which rows give one answer to every item of a column, where several are right."""
    tasks = dict.fromkeys(column.task for column in columns)
    constant: dict[str, list[str]] = {}
    for label, results in rows:
        for result in results:
            for task, items in stored_items(result, store).items():
                if task not in tasks or result.tasks[task].kind not in CHOOSES:
                    continue
                several = answers.distinct(items.gold) > 1
                title = result.tasks[task].title
                titles = constant.setdefault(label, [])
                if several and answers.distinct(items.predictions) == 1 and title not in titles:
                    titles.append(title)
    listed = "; ".join(f"{row} ({', '.join(titles)})" for row, titles in constant.items() if titles)
    if not listed:
        return []
    return [f"The same answer to every item in at least one seed: {listed}."]
