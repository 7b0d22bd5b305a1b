"""The loss in training as a column: the mean over the second half of a training's steps.

By then the rate has begun to fall and the first steps, in which methods differ most by their
warm-up, are over. The loss is that of each step's batch before the step, per token of an item, in
nats; with one epoch no batch was trained on before. Two rows are paired step by step, since a
seed gives both the same batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import pandas as pd

from quanta_bench.evaluation import stats
from quanta_bench.report.table import Column
from quanta_bench.results.records import Result
from quanta_bench.spec import canonical
from quanta_bench.statistics.scores import Scores, of_items
from quanta_bench.suites.schema import TRAINING_LOSS

KIND = "training"
"""Stands for a task's kind in a table of values."""

DECIMALS = 3
"""Rows are mostly a few hundredths apart."""

BATCHES = (
    "tasks",
    "source",
    "train_items",
    "protocol",
    "loss",
    "batch_size",
    "epochs",
    "max_length",
    "chat_template",
)
"""Settings of a training that determine its batches and what their loss is, beside the seeds."""


def losses(result: Result) -> list[float]:
    """The losses of the second half of a result's steps, one at least; none without a training."""
    steps = result.training.losses
    return steps[len(steps) // 2 :]


def items(result: Result) -> int:
    """Training items that they are of, repetitions counted; 0 without a training."""
    training = result.training
    seen = training.train_items * training.spec.epochs
    # The last batch of an epoch may be a smaller one.
    return min(len(losses(result)) * training.spec.batch_size, seen)


def frame(results: Iterable[Result]) -> pd.DataFrame:
    """The losses of results under each task that they scored, as `frames.metrics` has scores."""
    names = ("run", "task", "kind", "metric", "main", "value")
    lines = [
        (result.run, task, KIND, TRAINING_LOSS, False, stats.mean(losses(result)))
        for result in results
        if losses(result)
        for task in result.tasks
    ]
    return pd.DataFrame(lines, columns=names).astype({"value": float, "main": bool})


def error(results: Sequence[Result]) -> float:
    """Standard error of a row's mean over seeds, of their batches alone; NaN for one step."""
    return stats.error_of_average(
        [
            stats.clustered_standard_error(values, list(map(str, range(len(values)))))
            for values in map(losses, results)
        ]
    )


def notes(columns: Iterable[Column]) -> list[str]:
    """What a table says of the columns that show a loss in training."""
    titles = [column.title for column in columns if column.key.endswith(f"/{TRAINING_LOSS}")]
    if not titles:
        return []
    return [
        f"{', '.join(titles)}: the mean over the second half of a training's steps, in nats a "
        "token; its error is that over steps, and rows are paired step by step. No test item is "
        "read."
    ]


def by_step(results: Sequence[Result]) -> tuple[Scores, tuple[str, ...]] | None:
    """A row's losses taken apart by seed and step, and a name of each seed's batches.

    Args:
        results: the result of each seed.

    Returns:
        ``None`` if one of the results has no training.
    """
    values = [losses(result) for result in results]
    if not values or not all(values):
        return None
    names = tuple(_batches(result) for result in results)
    # Steps of two seeds have nothing in common, unless a seed varies the start alone.
    steps = [
        [f"{name}/{number:06d}" for number in range(len(of_seed))]
        for name, of_seed in zip(names, values, strict=True)
    ]
    return of_items(values, steps), names


def _batches(result: Result) -> str:
    """What names the batches of a training: their data and the settings that lay them out."""
    training = result.training
    spec = training.spec.model_dump(mode="json")
    of_training = {name: spec[name] for name in BATCHES} | {
        "seeds": [training.spec.seeds.order, training.spec.seeds.sample],
        "data": training.data,
        "steps": training.steps,
    }
    return hashlib.sha256(canonical(of_training).encode()).hexdigest()
