"""What the page's charts draw, as plain values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from quanta_bench.errors import BenchError
from quanta_bench.plugins import METHODS
from quanta_bench.references import short_names
from quanta_bench.report.page.front import pareto_front
from quanta_bench.report.page.grids import Known
from quanta_bench.report.rate_study import RowStudy, Study
from quanta_bench.report.table import Table, TableRow
from quanta_bench.results.records import Result

COSTS = {
    "parameters": "Trained parameters",
    "seconds": "Training seconds",
    "memory": "Peak memory, GB",
    "energy": "Energy, kJ",
}

LOSSES = 400
"""Training losses embedded of a run; more are thinned."""
ALL_LOSSES = 40_000
"""Of all runs together."""

_RATE = re.compile(r"^(.*\S)\s+(\d+(?:\.\d+)?e[+-]?\d+|\d*\.\d+)$", re.IGNORECASE)


@cache
def method_title(name: str) -> str:
    """A method's title, or its name where it is not installed or cannot be used."""
    try:
        return str(METHODS.get(name).title)
    except BenchError:
        return name


def trade_off(known: Known, results: Mapping[str, Result]) -> dict[str, Any]:
    """Scores and costs of a table's rows, with the front of every pair of them.

    Returns:
        ``measures`` (key, title, whether lower is better), ``rows`` with ``values`` (mean, half of
        the interval) by measure and ``costs`` by cost, ``fronts`` (numbers of rows) by measure and
        cost. A row that trains nothing has no costs.
    """
    table = known.table
    averages = [(f"average:{title}", title, title in known.lower) for title in table.averages]
    columns = [(column.key, column.title, column.key in known.lower) for column in table.columns]
    measures = [
        {"key": key, "title": title, "lower": lower} for key, title, lower in averages + columns
    ]
    rows = [
        _row(row, [results[run] for run in runs], words)
        for row, runs, words in zip(table.rows, known.runs, known.stale, strict=True)
        if row.cells
    ]
    fronts: dict[str, dict[str, list[int]]] = {}
    for measure in measures:
        key = str(measure["key"])
        scores = [row["values"].get(key, [None])[0] for row in rows]
        fronts[key] = {
            cost: pareto_front(
                [row["costs"][cost] for row in rows], scores, lower=bool(measure["lower"])
            )
            for cost in COSTS
        }
    return {
        "name": table.name,
        "title": table.title,
        "measures": [m for m in measures if any(m["key"] in row["values"] for row in rows)],
        "rows": rows,
        "fronts": fronts,
    }


def _row(row: TableRow, results: Sequence[Result], stale: str) -> dict[str, Any]:
    values = {key: [value.mean, value.margin] for key, value in row.cells.items()}
    values |= {f"average:{title}": [v.mean, v.margin] for title, v in row.averages.items()}
    trains = bool(row.method) and bool(row.trainable)
    return {
        "label": row.label,
        "model": row.model,
        "method": row.method,
        "title": method_title(row.method) if row.method else "",
        "values": values,
        "seeds": row.done_seeds,
        "costs": {
            "parameters": row.trainable if trains else None,
            "seconds": _seconds(row, results) if trains else None,
            "memory": _memory(row, results) if trains else None,
            "energy": _energy(row) if trains else None,
        },
        "perplexity": row.perplexity,
        "stale": stale,
    }


def _seconds(row: TableRow, results: Iterable[Result]) -> float | None:
    """Training seconds, mean over seeds, from the runs where the table does not hold them."""
    if row.cost is not None:
        return row.cost.training_seconds
    # Several trainings a seed where a table trains one a task; each counts once.
    seeds: dict[int, dict[str, float]] = {}
    for result in results:
        training = result.training
        seeds.setdefault(training.spec.seeds.init, {})[training.id] = training.seconds
    sums = [sum(seconds.values()) for seconds in seeds.values()]
    return sum(sums) / len(sums) if sums else None


def _memory(row: TableRow, results: Iterable[Result]) -> float | None:
    """The largest peak of a training, in GB, likewise; ``None`` if no peak is known."""
    if row.cost is not None:
        peaks = [row.cost.peak_memory_bytes]
    else:
        peaks = [result.training.peak_memory_bytes for result in results]
    known = [peak for peak in peaks if peak]
    return max(known) / 1e9 if known else None


def _energy(row: TableRow) -> float | None:
    """Energy of training, in kJ; ``None`` where it was not measured."""
    return row.cost.joules / 1e3 if row.cost and row.cost.joules is not None else None


def rate_curves(searches: Mapping[str, Study], tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Scores by learning rate, from searches and from tables whose rows are named by rates.

    Returns:
        By source: ``title`` and ``curves``, each with a ``label`` and ``trials`` by rising rate
        (rate, score, error, perplexity ratio, chosen; what is unknown is ``None``).
    """
    found = [
        {"title": name, "curves": [_searched(row) for row in study.rows if row.trials]}
        for name, study in searches.items()
    ]
    found += [
        {"title": table.title, "curves": _of_table(table)}
        for table in tables
        if table.name.startswith("rates")
    ]
    return [source for source in found if source["curves"]]


def _searched(row: RowStudy) -> dict[str, Any]:
    trials = [
        {
            "rate": trial.rate,
            "score": trial.score,
            "error": trial.standard_error,
            "ratio": trial.ratio,
            "chosen": trial.rate == row.chosen,
        }
        for trial in sorted(row.trials, key=lambda trial: trial.rate)
    ]
    return {"label": row.label, "trials": trials}


def _of_table(table: Table) -> list[dict[str, Any]]:
    base = next((r.perplexity for r in table.rows if r.method == "none" and r.perplexity), None)
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in table.rows:
        named = _RATE.match(row.label)
        values = list(row.averages.values()) or list(row.cells.values())
        if named and values:
            trial = {
                "rate": float(named[2]),
                "score": values[0].mean,
                "error": values[0].standard_error,
                "ratio": row.perplexity / base if base and row.perplexity else None,
                "chosen": False,
            }
            curves.setdefault(named[1], []).append(trial)
    return [
        {"label": label, "trials": sorted(trials, key=lambda trial: trial["rate"])}
        for label, trials in curves.items()
    ]


def learning_curves(
    tables: Sequence[Known], results: Mapping[str, Result], *, full: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """Losses and validations by step of every run that trained, by table and what it trained on.

    Args:
        tables: the stored tables with their runs.
        results: all runs.
        full: keep every training loss.

    Returns:
        By group a ``title`` and ``runs``: label, seed, ``best`` step, ``validations`` (step,
        metric, loss) and ``losses`` (step, loss); and what was left out, in words.
    """
    limit = max(20, min(LOSSES, ALL_LOSSES // max(1, len(results))))
    if full:
        limit = max((len(result.training.losses) for result in results.values()), default=0)
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    placed: set[str] = set()
    for known in tables:
        for row, runs in zip(known.table.rows, known.runs, strict=True):
            for result in (results[run] for run in runs):
                placed.add(result.run)
                title = f"{known.table.name}, {_trained_on(result)}"
                _place(groups, title, row.label, result, limit)
    for run, result in results.items():
        if run not in placed:
            label = result.training.label or result.training.spec.method
            _place(groups, f"In no table, {_trained_on(result)}", label, result, limit)
    thinned = sum(len(result.training.losses) > limit for result in results.values())
    left_out = (
        [f"Training losses of {thinned:,} runs are thinned to {limit} steps or fewer each."]
        if thinned
        else []
    )
    made = [{"title": title, "runs": list(runs.values())} for title, runs in groups.items()]
    return made, left_out


def _trained_on(result: Result) -> str:
    tasks = result.training.spec.tasks
    what = short_names(tasks)[tasks[0]] if len(tasks) == 1 else f"{len(tasks)} tasks"
    return f"trained on {what} ({result.training.train_items:,} items)"


def _place(
    groups: dict[str, dict[str, dict[str, Any]]], title: str, label: str, result: Result, limit: int
) -> None:
    training = result.training
    if not training.steps:
        return
    steps = len(training.losses)
    stride = max(1, -(-steps // limit) if limit else 1)
    group = groups.setdefault(title, {})
    # Two evaluations of a training have the same curve.
    group.setdefault(
        training.id,
        {
            "label": label,
            "method": training.spec.method,
            "seed": training.spec.seeds.init,
            "best": training.best_step,
            "validations": [
                [step, _rounded(metric), _rounded(loss)]
                for step, metric, loss in training.validations
            ],
            "losses": [
                [number + 1, _rounded(training.losses[number])]
                for number in range(0, steps, stride)
            ],
        },
    )


def _rounded(value: float) -> float | None:
    """Five digits are more than a chart shows."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
