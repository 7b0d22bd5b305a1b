"""What is kept of judged items: a task's scores, and one line an item."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from quanta_bench.evaluation import evaluators, stats
from quanta_bench.results.records import TaskResult
from quanta_bench.task import Task


def summarise(
    task: Task,
    protocol: str,
    judged: Sequence[evaluators.Judged],
    seconds: float,
    data: dict[str, Any],
) -> TaskResult:
    """A task's scores from its judged items."""
    groups = [item.example.group for item in judged]
    metric = task.metric

    def measure(some: Sequence[evaluators.Judged]) -> dict[str, float]:
        found = task.aggregate([item.answer for item in some])
        return found | (evaluators.perplexities(some) if task.kind == "perplexity" else {})

    metrics = measure(judged)
    if task.kind != "perplexity" and judged and "log_likelihoods" in judged[0].detail:
        metrics |= evaluators.by_normaliser(task, judged)
    if all(metric in item.answer.scores for item in judged):
        values = [item.answer.scores[metric] for item in judged]
        error = stats.clustered_standard_error(values, groups)
    else:
        error = stats.jackknife_standard_error(lambda some: measure(some)[metric], judged, groups)
    return TaskResult(
        title=task.title,
        kind=task.kind,
        metric=metric,
        metrics=metrics,
        items=len(judged),
        groups=len(set(groups)),
        standard_error=None if math.isnan(error) else error,
        chance=task.chance([item.example for item in judged], protocol),
        cut_items=sum(item.cut > 0 for item in judged),
        max_new_tokens=judged[0].max_new_tokens if judged else None,
        long_answers=sum(item.too_long for item in judged),
        seconds=seconds,
        data=data,
    )


def line(reference: str, item: evaluators.Judged) -> dict[str, Any]:
    """A judged item as one line of ``predictions.jsonl``."""
    return {
        "task": reference,
        "id": item.example.id,
        "group": item.example.group,
        "prediction": item.answer.prediction,
        "gold": item.answer.gold,
        **item.answer.scores,
        **item.detail,
    }
