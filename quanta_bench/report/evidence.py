"""What a table's numbers allow one to conclude: from predictions to intervals and comparisons."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import numpy as np

from quanta_bench.plugins import METHODS, find_task
from quanta_bench.report import training_loss
from quanta_bench.results.integrity import DamagedError
from quanta_bench.results.predictions import ItemScores
from quanta_bench.results.records import Result, TaskResult
from quanta_bench.results.store import Store
from quanta_bench.statistics import scores as taken_apart
from quanta_bench.statistics.comparison import Difference, compare, holm
from quanta_bench.statistics.letters import letters
from quanta_bench.statistics.noise import Noise
from quanta_bench.statistics.pooling import row_noises
from quanta_bench.statistics.scores import Scores
from quanta_bench.suites.schema import ColumnSpec
from quanta_bench.task import Answer

Row = TypeVar("Row")

BASE = "none"
"""The method whose rows are the base model."""

REFERENCE = "lora"
"""Rows are compared with the first row of this method."""

MOST_LETTERED = 40
"""Rows of a column that get letters, at most. All pairs of more take minutes, and more letters than
the alphabet has tell a reader nothing."""

UNITS = {"perplexity": "tokens", "word_perplexity": "words"}
"""What a perplexity is by."""


@dataclass(frozen=True)
class Evidence:
    """A row's scores in a column, in the table's unit.

    Attributes:
        seeds: the seeds.
        scores: taken apart by seed and item.
        items: of each seed, a hash of the names of its items; rows with the same can be paired.
        lower_is_better: whether a lower score is better, as of perplexities.
        decimals: how many are shown.
    """

    seeds: tuple[int, ...]
    scores: Scores
    items: tuple[str, ...]
    lower_is_better: bool = False
    decimals: int = 1


def scale(scored: TaskResult) -> float:
    """What a stored score is multiplied by in tables: 100 for fractions."""
    return 1.0 if scored.kind == "perplexity" else 100.0


def decimals(column: ColumnSpec, results: Sequence[Result]) -> int:
    """How many decimals of a column's values are shown."""
    if column.of_training:
        return training_loss.DECIMALS
    return 2 if all(r.tasks[column.task].kind == "perplexity" for r in results) else 1


def evidence(column: ColumnSpec, results: Mapping[int, Result], store: Store) -> Evidence | None:
    """A row's scores in a column.

    Args:
        column: the column.
        results: the result of each seed; each has scored the column's task.
        store: where their predictions are stored.

    Returns:
        ``None`` if predictions are not stored, or if they do not determine the metric; of a loss in
        training, if a row did not train.
    """
    runs = list(results.values())
    if column.of_training:
        losses = training_loss.by_step(runs)
        return losses and Evidence(tuple(results), *losses, True, decimals(column, runs))
    items = [stored_items(result, store).get(column.task) for result in runs]
    known = [one for one in items if one is not None and one.ids]
    if not runs or len(known) < len(runs):
        return None
    scored = runs[0].tasks[column.task]
    metric = column.metric or scored.metric
    values = [one.scores.get(metric) for one in known]
    present = [list(one) for one in values if one is not None]
    if len(present) == len(known):
        made = taken_apart.of_items(present, [one.groups for one in known])
    else:
        found = _of_answers(column.task, metric, scored, known)
        if found is None:
            return None
        made = found
    names = tuple(hashlib.sha256("\0".join(one.ids).encode()).hexdigest() for one in known)
    lower = scored.kind == "perplexity"
    scores = made.times(scale(scored))
    return Evidence(tuple(results), scores, names, lower, decimals(column, runs))


def stored_items(result: Result, store: Store) -> Mapping[str, ItemScores]:
    """A run's items by task; empty if its predictions are not stored, or damaged."""
    try:
        stored = store.item_scores(result.run) or {}
    except DamagedError as error:
        store.notice(str(error))
        return {}
    # A task of a file that was moved has another name in the result; their order is the same.
    return dict(zip(result.tasks, stored.values(), strict=True)) if stored else {}


def _of_answers(
    task: str, metric: str, scored: TaskResult, items: Sequence[ItemScores]
) -> Scores | None:
    """A metric that single items do not have, from the answers; ``None`` if it is not theirs."""
    if scored.kind == "perplexity":
        return _of_texts(metric, items)
    plugin = find_task(task)
    answers = [_answers(of_seed) for of_seed in items]
    if any(answer.prediction is None for of_seed in answers for answer in of_seed):
        # Tied candidates are several answers with weights, which predictions do not hold.
        return None

    def measure(some: Sequence[Answer]) -> float:
        return plugin.aggregate(some).get(metric, math.nan)

    groups = [list(of_seed.groups) for of_seed in items]
    return taken_apart.of_metric(measure, answers, groups)


def _of_texts(metric: str, items: Sequence[ItemScores]) -> Scores | None:
    """A perplexity, from the likelihoods of the texts; ``None`` if they are not stored."""
    unit = UNITS.get(metric, "")
    if not all({"log_likelihoods", unit} <= one.texts.keys() for one in items):
        return None

    def perplexity(some: Sequence[tuple[float, float]]) -> float:
        nats, counts = np.sum(some, axis=0)
        return math.exp(-nats / counts)

    pairs = [list(zip(one.texts["log_likelihoods"], one.texts[unit], strict=True)) for one in items]
    return taken_apart.of_metric(perplexity, pairs, [list(one.groups) for one in items])


def _answers(items: ItemScores) -> list[Answer]:
    return [
        Answer(prediction, gold, {name: float(values[n]) for name, values in items.scores.items()})
        for n, (prediction, gold) in enumerate(zip(items.predictions, items.gold, strict=True))
    ]


def items_of(column: ColumnSpec) -> tuple[bool, str]:
    """What the items of a column are: steps of the training, or the test items of a task."""
    return column.of_training, column.task


def average(specs: Sequence[ColumnSpec], columns: Sequence[Evidence | None]) -> Evidence | None:
    """A row's mean over columns.

    Args:
        specs: the columns.
        columns: the row's scores in each.

    Returns:
        ``None`` unless all have the same seeds, and two metrics of one task the same groups of
        items.
    """
    known = [column for column in columns if column is not None]
    if not known or len(known) < len(columns) or len({column.seeds for column in known}) > 1:
        return None
    try:
        scores = taken_apart.average(
            [column.scores for column in known], [items_of(spec) for spec in specs]
        )
    except ValueError:
        return None
    items = tuple(
        "/".join(column.items[number] for column in known) for number in range(len(known[0].seeds))
    )
    return Evidence(
        known[0].seeds,
        scores,
        items,
        all(column.lower_is_better for column in known),
        max(column.decimals for column in known),
    )


def from_results(values: Sequence[float], errors: Sequence[float | None], groups: int) -> Noise:
    """The noise of a mean over seeds without predictions: an upper bound.

    Seeds may have been scored on the same items, so that their mean is no more certain than one of
    them, and the noise that seeds and items share counts twice.

    Args:
        values: a seed's score each.
        errors: a seed's standard error over items each, in the same unit; ``None`` if unknown.
        groups: groups of test items.
    """
    known = [error for error in errors if error is not None]
    items = float(np.mean(np.square(known))) if len(known) == len(values) else math.nan
    if len(values) < 2:
        return Noise(items, max(groups - 1, 1))
    spread = float(np.var(values, ddof=1)) / len(values)
    return Noise(items, max(groups - 1, 1), spread, len(values) - 1)


def margin(error: Noise) -> float | None:
    """Half of the 95 % interval; ``None`` if it is unknown, as where all scores are the same."""
    half = error.quantile() * error.standard_error
    return half if math.isfinite(half) and half > 0 else None


def own_margins(rows: Mapping[Row, Evidence], fixed: Collection[Row]) -> dict[Row, float | None]:
    """Half of the 95 % interval of each row's mean in one column.

    Args:
        rows: evidence by row.
        fixed: rows that do not train.
    """
    alike: dict[object, dict[Row, Scores]] = {}
    for name, found in rows.items():
        alike.setdefault((found.seeds, found.items), {})[name] = found.scores
    errors = [row_noises(scores, fixed) for scores in alike.values()]
    return {name: margin(error) for of_some in errors for name, error in of_some.items()}


def own_errors(found: Evidence) -> dict[int, float]:
    """Of each seed, the standard error over its own items; seeds without one are left out."""
    errors = np.sqrt((found.scores.parts**2).sum(axis=1)).tolist()
    return {s: e for s, e in zip(found.seeds, errors, strict=True) if math.isfinite(e)}


def trains(method: str) -> bool:
    """Whether a method trains; one that does not gives the same answers with every seed."""
    return METHODS.get(method).trains


def comparable(
    rows: Mapping[str, Evidence], fixed: Sequence[str], reference: str
) -> dict[str, Scores]:
    """The rows that can be paired with the reference, on the seeds that they share.

    Args:
        rows: evidence by row.
        fixed: rows that do not train.
        reference: the row to be compared with.
    """
    if reference not in rows:
        return {}
    trained = [found for name, found in rows.items() if name not in fixed]
    if not trained:
        return {name: found.scores.pooled() for name, found in rows.items()}
    first = rows[reference]
    if reference in fixed:
        # What most rows were trained and scored with: the first row may lack a seed.
        designs = Counter((found.seeds, found.items, found.scores.groups) for found in trained)
        most = designs.most_common(1)[0][0]
        first = next(f for f in trained if (f.seeds, f.items, f.scores.groups) == most)
    items = dict(zip(first.seeds, first.items, strict=True))
    kept = {}
    for name, found in rows.items():
        once = name in fixed and len(set(items.values())) == 1
        if once:
            same = set(found.items) == set(items.values())
        else:
            same = dict(zip(found.seeds, found.items, strict=True)) == items
        if same and found.scores.groups == first.scores.groups:
            kept[name] = found.scores.pooled() if once else found.scores
    return kept


def differences(
    rows: Mapping[str, Evidence],
    fixed: Sequence[str],
    reference: str,
    only: Collection[str] | None = None,
) -> list[Difference]:
    """Every row that can be paired with the reference, less the reference; Holm over these.

    None where the reference was scored for other seeds than the rows, as in an unfinished table.

    Args:
        rows: evidence by row.
        fixed: rows that do not train.
        reference: the row to be compared with.
        only: rows to compare, if not all; the others lend their spread over seeds.
    """
    scores = comparable(rows, fixed, reference)
    if reference not in scores:
        return []
    wanted = scores if only is None else [name for name in scores if name in only]
    pairs = [(name, reference) for name in wanted if name != reference]
    return compare(scores, pairs, [name for name in fixed if name in scores])


def across_columns(
    columns: Mapping[str, Mapping[str, Evidence]],
    fixed: Sequence[str],
    reference: str,
    only: Collection[str] | None = None,
) -> dict[str, list[Difference]]:
    """The differences in each column; Holm over those of all columns together.

    Args:
        columns: evidence by column and row.
        fixed: rows that do not train.
        reference: the row to be compared with.
        only: as of `differences`.
    """
    by_column = {key: differences(rows, fixed, reference, only) for key, rows in columns.items()}
    corrected = holm([one.p for of_key in by_column.values() for one in of_key])
    count = max(sum(not math.isnan(p) for p in corrected), 1)
    p_holm = iter(corrected)
    return {
        key: [replace(one, p_holm=next(p_holm), comparisons=count) for one in of_key]
        for key, of_key in by_column.items()
    }


def groups(rows: Mapping[str, Evidence], fixed: Sequence[str], reference: str) -> dict[str, str]:
    """Letters by row, the best first: rows that share one do not differ significantly, after Holm.

    None of more than `MOST_LETTERED` rows.
    """
    scores = comparable(rows, fixed, reference)
    if not 2 <= len(scores) <= MOST_LETTERED:
        return {}
    sign = 1 if rows[reference].lower_is_better else -1
    order = sorted(scores, key=lambda name: sign * float(scores[name].means.mean()))
    still = [name for name in fixed if name in scores]
    found = compare(scores, combinations(order, 2), still)
    if any(math.isnan(one.p) for one in found):
        return {}
    return letters(order, [(one.row, one.reference) for one in found if one.shown])
