"""From results to a table's numbers, each with its spread over seeds and its error over items."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from pydantic import BaseModel

from quanta_bench import captions, stats
from quanta_bench.meta import Count
from quanta_bench.store import Result, Store
from quanta_bench.suite import Profile, Suite
from quanta_bench.sweep import Cells


class Value(BaseModel):
    """A number of a table, in the table's unit (percent for fractions).

    Attributes:
        mean: over seeds.
        deviation: standard deviation over seeds (n - 1); ``None`` for one seed.
        standard_error: of the mean over items, robust to groups of related items.
        seeds: the value of each seed.
    """

    mean: float
    deviation: float | None
    standard_error: float | None
    seeds: dict[int, float]


class Column(BaseModel):
    """A column: its task, heading, and number of items scored."""

    task: str
    title: str
    items: int = 0


class TableRow(BaseModel):
    """A row of a table; cells that are not computed are absent.

    Attributes:
        label: the row's name.
        method: registered name of the method; empty for the chance level.
        model: the base model.
        trainable: trained parameters.
        percent: share of them, by ``denominator``.
        denominator: what the share is of.
        wanted_seeds: number of seeds asked for.
        done_seeds: seeds that are there.
        cells: values by task.
        average: over all columns; ``None`` while one is missing.
        perplexity: of running text after the run, mean over seeds, where measured.
        footnote: what the method has to say of itself.
        missing: why the row is empty, if it cannot run.
    """

    label: str
    method: str = ""
    model: str = ""
    trainable: int | None = None
    percent: float | None = None
    denominator: str = ""
    wanted_seeds: int = 0
    done_seeds: list[int] = []
    cells: dict[str, Value] = {}
    average: Value | None = None
    perplexity: float | None = None
    footnote: str = ""
    missing: str = ""


class Table(BaseModel):
    """A table as it stands.

    Attributes:
        name: short name.
        title: caption.
        profile: the profile it was run in.
        average: heading of the average.
        columns: columns in order.
        rows: rows in order, the chance level first.
        notes: what a reader has to know, each a sentence or two.
    """

    name: str
    title: str
    profile: str
    average: str
    columns: list[Column]
    rows: list[TableRow]
    notes: list[str]


def make_table(
    suite: Suite,
    profile_name: str,
    profile: Profile,
    size: str,
    cells: Sequence[Cells],
    store: Store,
) -> Table:
    """The table of a grid, from whatever results are there."""
    everything = [result for cell in cells for result in cell.results.values()]
    columns = [
        Column(
            task=task,
            title=next((r.tasks[task].title for r in everything if task in r.tasks), task),
            items=next((r.tasks[task].items for r in everything if task in r.tasks), 0),
        )
        for task in suite.tasks
    ]
    rows = [_row(cell, suite.tasks, store) for cell in cells]
    chance = _chance(everything[0], suite.tasks) if everything else None
    return Table(
        # A size of the user's choice does not overwrite the files of the default one.
        name=suite.name if size in ("", profile.size) else f"{suite.name}-{size}",
        title=suite.title,
        profile=profile_name,
        average=suite.average,
        columns=columns,
        rows=([chance] if chance else []) + rows,
        notes=captions.notes(profile, size, cells, rows),
    )


def _row(cell: Cells, tasks: Sequence[str], store: Store) -> TableRow:
    from quanta_bench.methods import METHODS

    spec = cell.row.spec
    known = spec.method in METHODS
    row = TableRow(
        label=spec.label or spec.method,
        method=spec.method,
        model=cell.row.model.name,
        denominator=cell.row.denominator,
        wanted_seeds=len(cell.row.seeds),
        done_seeds=sorted(cell.results),
        footnote=METHODS.get(spec.method).footnote if known else "",
        missing=cell.row.missing,
    )
    results = [cell.results[seed] for seed in row.done_seeds]
    if not results:
        return row
    first = results[0].training
    row.trainable = first.trainable_parameters
    count = Count(first.trainable_parameters, first.base_parameters, first.added_parameters)
    row.percent = 100 * count.share(cell.row.denominator)
    scores = [_scores(result, store) for result in results]
    for task in tasks:
        if all(task in result.tasks for result in results):
            by_seed = {
                seed: _shown(result, task)
                for seed, result in zip(row.done_seeds, results, strict=True)
            }
            row.cells[task] = _value(by_seed, _item_error(task, results, scores))
    if len(row.cells) == len(tasks) > 1:
        by_seed = {
            seed: stats.mean([row.cells[task].seeds[seed] for task in tasks])
            for seed in row.done_seeds
        }
        errors = [row.cells[task].standard_error for task in tasks]
        apart = [error for error in errors if error is not None]
        # An average with an unknown part has an unknown error, not a smaller one.
        whole = stats.error_of_average(apart) if len(apart) == len(errors) else None
        row.average = _value(by_seed, whole)
    lost = [value for result in results for value in result.forgetting.values()]
    row.perplexity = stats.mean(lost) if lost else None
    return row


def _value(by_seed: dict[int, float], error: float | None) -> Value:
    values = list(by_seed.values())
    return Value(
        mean=stats.mean(values),
        deviation=stats.deviation(values) if len(values) > 1 else None,
        standard_error=error,
        seeds=by_seed,
    )


def _scale(result: Result, task: str) -> float:
    return 1.0 if result.tasks[task].kind == "perplexity" else 100.0


def _shown(result: Result, task: str) -> float:
    found = result.tasks[task]
    return found.metrics[found.metric] * _scale(result, task)


Scores = dict[str, dict[str, tuple[str, float | None]]]


def _scores(result: Result, store: Store) -> Scores:
    """Per task and item: its group, and its score where the metric is one of single items."""
    found: Scores = defaultdict(dict)
    for line in store.predictions(result.run):
        metric = result.tasks[line["task"]].metric
        found[line["task"]][line["id"]] = (line["group"], line.get(metric))
    return found


def _item_error(task: str, results: Sequence[Result], scores: Sequence[Scores]) -> float | None:
    """Standard error of a row's mean over items; an item's score is its mean over seeds.

    Seeds that were scored on different items (a varied sample) are independent draws.
    """
    items = [set(one[task]) for one in scores]
    apart = [result.tasks[task].standard_error for result in results]
    known = [one for one in apart if one is not None]
    if any(score is None for one in scores for _, score in one[task].values()):
        # F1, a correlation, a perplexity: each run knows its own error. Seeds that are scored on
        # the same items are not independent; their mean is no surer than one of them.
        error = stats.mean(known) if len(known) == len(apart) else math.nan
    elif all(ids == items[0] for ids in items):
        ids = sorted(items[0])
        values = [stats.mean([one[task][i][1] or 0.0 for one in scores]) for i in ids]
        groups = [scores[0][task][i][0] for i in ids]
        error = stats.clustered_standard_error(values, groups)
    else:
        error = stats.error_of_average(known) if len(known) == len(apart) else math.nan
    return None if math.isnan(error) else error * _scale(results[0], task)


def _chance(result: Result, tasks: Sequence[str]) -> TableRow | None:
    levels = {task: result.tasks[task].chance for task in tasks if task in result.tasks}
    cells = {
        task: Value(mean=100 * level, deviation=None, standard_error=None, seeds={})
        for task, level in levels.items()
        if level is not None
    }
    if not cells:
        return None
    row = TableRow(label="Chance", cells=cells)
    if len(cells) == len(tasks) > 1:
        mean = stats.mean([value.mean for value in cells.values()])
        row.average = Value(mean=mean, deviation=None, standard_error=None, seeds={})
    return row
