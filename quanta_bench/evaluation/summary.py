"""The stored form of judged items: a task's scores, and one line per item."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from quanta_bench.evaluation import decisions, evaluators, stats
from quanta_bench.plugins import find_protocol
from quanta_bench.results.records import TaskResult
from quanta_bench.task import Task


def summarise(
    task: Task,
    protocol: str,
    judged: Sequence[evaluators.Judged],
    seconds: float,
    data: dict[str, Any],
    shared: Collection[str] | None = None,
) -> TaskResult:
    """A task's scores from its judged items.

    The standard error is that of the expected scores: an item whose best candidates tie has a score
    between 0 and 1, and drawing one of these at random would only add noise of our own.

    Args:
        task: the task.
        protocol: registered name of the protocol.
        judged: its items.
        seconds: wall time of scoring them.
        data: fingerprints of what was read.
        shared: ids of items whose text is in the training data, where that was looked for.

    Raises:
        NonFiniteError: a metric is NaN or infinite.
    """
    groups = [item.example.group for item in judged]
    within = None if shared is None else frozenset(shared)
    metric = task.metric

    def measure(items: Sequence[evaluators.Judged]) -> dict[str, float]:
        metrics = decisions.aggregate(task, [item.answers for item in items])
        return metrics | (evaluators.perplexities(items) if task.kind == "perplexity" else {})

    metrics = measure(judged)
    if task.kind != "perplexity" and judged and "log_likelihoods" in judged[0].detail:
        metrics |= evaluators.by_normaliser(task, judged)
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise decisions.NonFiniteError(f"{task.reference}: the metric {name} is {value}")
    if all(metric in item.answer.scores for item in judged):
        values = [item.answer.scores[metric] for item in judged]
        error = stats.clustered_standard_error(values, groups)
    else:
        error = stats.jackknife_standard_error(lambda items: measure(items)[metric], judged, groups)
    return TaskResult(
        title=task.title,
        kind=task.kind,
        metric=metric,
        metrics=metrics,
        items=len(judged),
        groups=len(set(groups)),
        standard_error=None if math.isnan(error) else error,
        chance=find_protocol(protocol).chance(task, [item.example for item in judged]),
        cut_items=sum(item.cut > 0 for item in judged),
        max_new_tokens=judged[0].max_new_tokens if judged else None,
        long_answers=sum(item.too_long for item in judged),
        tied=sum(item.tied for item in judged),
        overlap=None if within is None else sum(item.example.id in within for item in judged),
        seconds=seconds,
        data=data,
    )


def line(reference: str, item: evaluators.Judged) -> dict[str, Any]:
    """A judged item as one line of ``predictions.jsonl``.

    Raises:
        NonFiniteError: a score is NaN or infinite, which JSON cannot hold.
    """
    for name, value in item.answer.scores.items():
        if not math.isfinite(value):
            raise decisions.NonFiniteError(
                f"{reference}, item {item.example.id}: the score {name} is {value}"
            )
    return {
        "task": reference,
        "id": item.example.id,
        "group": item.example.group,
        "prediction": item.answer.prediction,
        "gold": item.answer.gold,
        **item.answer.scores,
        **item.detail,
    }
