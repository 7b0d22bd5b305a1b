"""Where runs read their base models and their data."""

from __future__ import annotations

from collections.abc import Iterable

from quanta_bench.plugins import METHODS, TASKS, find_task
from quanta_bench.spec import EvaluationSpec, TrainingSpec


def model_sources(jobs: Iterable[tuple[TrainingSpec, EvaluationSpec]]) -> set[str]:
    """The sources of base models."""
    return {training.model.source for training, _ in jobs}


def data_sources(jobs: Iterable[tuple[TrainingSpec, EvaluationSpec]]) -> set[str]:
    """The sources of data; tasks that read a user's own file need none."""
    sources: set[str] = set()
    for training, evaluation in jobs:
        read = [(evaluation.source, evaluation.tasks)]
        if training.method not in METHODS or METHODS.get(training.method).trains:
            read.append((training.source, training.tasks))
        if evaluation.forgetting:
            read.append((evaluation.forgetting_source, (evaluation.forgetting,)))
        sources.update(source for source, tasks in read if any(map(_reads_source, tasks)))
    return sources


def _reads_source(reference: str) -> bool:
    registered = reference.partition(":")[0] in TASKS
    return not registered or find_task(reference).reads_source
