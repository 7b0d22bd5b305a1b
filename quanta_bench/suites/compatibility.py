"""Which protocols, tasks and losses go together: refused before anything is read or computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from quanta_bench.errors import BenchError, UsageError, did_you_mean
from quanta_bench.plugins import METHODS, find_protocol, find_task, is_registered
from quanta_bench.spec import EvaluationSpec, Normaliser, TrainingSpec
from quanta_bench.suites.schema import TRAINING_LOSS, ColumnSpec, Suite
from quanta_bench.task import Task


def check_protocols(training: TrainingSpec, evaluation: EvaluationSpec) -> None:
    """Refuse protocols that cannot be run, and losses that a protocol does not have.

    Raises:
        UsageError: names the protocol, and the task and the protocols that this knows.
    """
    _check_tasks(training, evaluation)
    for name in dict.fromkeys((training.protocol, evaluation.protocol)):
        find_protocol(name).check(training, evaluation)
    pairs = [(task, training.protocol) for task in training.tasks]
    pairs += [(task, evaluation.protocol) for task in evaluation.tasks]
    for reference, name in pairs:
        task = find_task(reference)
        if not find_protocol(name).accepts(task):
            raise UsageError(
                f"The task {reference!r} does not support the protocol {name!r}; it supports "
                f"{', '.join(task.protocols)}."
            )
        if task.kind == "perplexity" and training.select == "score":
            raise UsageError(
                f"select 'score' is for answers that are generated, and {reference!r} is text to "
                "predict. Leave select at 'likelihood'."
            )
    for reference in training.tasks:
        losses = find_protocol(training.protocol).losses(find_task(reference))
        if training.loss not in losses:
            raise UsageError(
                f"The task {reference!r} under the protocol {training.protocol!r} cannot be "
                f"trained with the loss {training.loss!r}. Use the loss "
                f"{' or '.join(map(repr, losses))}."
            )


def _check_tasks(training: TrainingSpec, evaluation: EvaluationSpec) -> None:
    """Refuse a run without tasks, or with one twice.

    Raises:
        UsageError: says which.
    """
    if not training.tasks and METHODS.get(training.method).trains:
        raise UsageError(
            f"training.tasks is empty, and the method {training.method!r} trains: name at least "
            "one task."
        )
    if not evaluation.tasks:
        raise UsageError("evaluation.tasks is empty: name at least one task to score.")
    text = evaluation.forgetting
    if text and find_task(text).kind != "perplexity":
        raise UsageError(
            f"evaluation.forgetting names {text!r}, which is no running text: its perplexity says "
            "nothing. Name a task such as running_text, or none ('')."
        )
    for part, tasks in (("training", training.tasks), ("evaluation", evaluation.tasks)):
        for task in tasks:
            if tasks.count(task) > 1:
                raise UsageError(f"{part}.tasks names {task!r} more than once.")


def metrics_of(task: Task, protocol: str) -> tuple[str, ...]:
    """The metrics that a task's results have under a protocol, its main one first."""
    names = [task.metric, *task.metrics]
    if task.kind == "perplexity":
        names += ["perplexity", "word_perplexity"]
    elif find_protocol(protocol).compares(task):
        names += [f"{task.metric}/{normaliser}" for normaliser in get_args(Normaliser)]
    return tuple(dict.fromkeys(names))


def check_metrics(columns: Sequence[ColumnSpec], evaluations: Iterable[EvaluationSpec]) -> None:
    """Refuse a column whose task has no such metric; tasks that are not registered pass.

    Args:
        columns: the columns.
        evaluations: of the runs that are to fill them.

    Raises:
        UsageError: names the column's metric and the nearest ones.
    """
    protocols: dict[str, set[str]] = {}
    for evaluation in evaluations:
        for reference in evaluation.tasks:
            protocols.setdefault(reference, set()).add(evaluation.protocol)
    for column in columns:
        if column.metric in ("", TRAINING_LOSS) or not is_registered(column.task):
            continue
        task = find_task(column.task)
        for protocol in sorted(protocols.get(column.task, ())):
            known = metrics_of(task, protocol)
            if column.metric not in known:
                raise UsageError(
                    f"The task {column.task!r} has no metric {column.metric!r}. "
                    f"{did_you_mean(column.metric, known)}"
                )


def without_mixed_average(suite: Suite) -> Suite:
    """The suite without the average over all columns, where these have no unit in common.

    The mean of an accuracy and a perplexity says nothing.

    Args:
        suite: the suite, as a profile has it.

    Raises:
        UsageError: an average that the suite itself names has columns of several units.
    """
    units = {column.key: _unit(column) for column in suite.shown_columns}
    for average in suite.averages:
        found = {key: units[key] for key in average.columns or units}
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{key} ({unit})" for key, unit in found.items())
            raise UsageError(
                f"The average {average.title!r} of {suite.name} mixes units: {listed}. Name "
                "columns of one."
            )
    shown = {units[key] for average in suite.shown_averages for key in average.columns}
    return suite.model_copy(update={"average": ""}) if len(shown) > 1 else suite


def _unit(column: ColumnSpec) -> str:
    if column.of_training:
        return "loss"
    try:
        kind = find_task(column.task).kind
    except BenchError:
        return "score"  # why it cannot be used is said where it is needed
    return "perplexity" if kind == "perplexity" else "score"


def check_columns(suite: Suite, evaluations: Iterable[EvaluationSpec]) -> None:
    """Refuse to score a task that neither a column nor the suite's own list of tasks names.

    Args:
        suite: the suite, as a profile has it.
        evaluations: of the runs that are to fill its columns.

    Raises:
        UsageError: names the task and those of the suite.
    """
    shown = list(dict.fromkeys([*(column.task for column in suite.shown_columns), *suite.tasks]))
    for evaluation in evaluations:
        for task in evaluation.tasks:
            if task not in shown:
                raise UsageError(
                    f"evaluation.tasks names {task!r}, which no column of {suite.name} shows. "
                    f"{did_you_mean(task, shown)}"
                )
