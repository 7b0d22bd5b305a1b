"""Which protocols, tasks and losses go together: refused before anything is read or computed."""

from __future__ import annotations

from quanta_bench.data.pools import find_task
from quanta_bench.errors import UsageError
from quanta_bench.spec import EvaluationSpec, TrainingSpec


def check_protocols(training: TrainingSpec, evaluation: EvaluationSpec) -> None:
    """Refuse protocols that cannot be run, and losses that a protocol does not have.

    Raises:
        UsageError: names the protocol, and the task and the protocols that this knows.
    """
    if "head" in (training.protocol, evaluation.protocol):
        _check_head(training, evaluation)
    wanted = [(task, training.protocol) for task in training.tasks]
    wanted += [(task, evaluation.protocol) for task in evaluation.tasks]
    for reference, protocol in wanted:
        task = find_task(reference)
        known = protocol in task.protocols or (task.kind == "perplexity" and protocol != "head")
        if not known:
            raise UsageError(
                f"The task {reference!r} cannot be put as {protocol!r}; "
                f"it knows {', '.join(task.protocols)}."
            )
        if task.kind == "perplexity" and training.select == "score":
            raise UsageError(
                f"select 'score' is for answers that are generated, and {reference!r} is text to "
                "predict. Leave select at 'likelihood'."
            )
        if training.loss == "labels" and protocol != "head":
            raise UsageError(
                f"The loss 'labels' is that of a classification head, and {reference!r} is put as "
                f"{protocol!r}. Use 'candidates' or 'answer'."
            )
        choosing = task.chooses and protocol != "generate"
        if reference in training.tasks and training.loss == "candidates" and not choosing:
            raise UsageError(
                f"The loss 'candidates' compares candidates, and {reference!r} put as "
                f"{protocol!r} has none. Use the loss 'answer'."
            )


def _check_head(training: TrainingSpec, evaluation: EvaluationSpec) -> None:
    """Refuse what a model with a classification head cannot do.

    Raises:
        UsageError: says what that is.
    """
    if training.protocol != evaluation.protocol:
        raise UsageError(
            "A classification head answers only where it was trained: training and evaluation are "
            f"both put as 'head', and here {training.method!r} is trained as "
            f"{training.protocol!r} and scored as {evaluation.protocol!r}."
            if training.tasks
            else f"The method {training.method!r} trains nothing, and a classification head "
            "that is not trained answers at random. Choose a method that trains."
        )
    tasks = {*training.tasks, *evaluation.tasks}
    if len(tasks) != 1:
        raise UsageError(
            f"A classification head answers one task, and these are {', '.join(sorted(tasks))}: "
            "run each by itself ('trained: apart' in a suite)."
        )
    if evaluation.forgetting:
        raise UsageError(
            "A model with a classification head predicts no text, so what it forgot of "
            f"{evaluation.forgetting!r} cannot be measured: leave evaluation.forgetting empty."
        )
    if training.loss != "labels":
        raise UsageError(
            f"A classification head is trained with the loss 'labels', not {training.loss!r}."
        )
    task = find_task(tasks.pop())
    if "head" in task.protocols and task.outputs < 1:
        raise UsageError(
            f"The task {task.name!r} does not say how many outputs a classification head has for "
            "it (outputs)."
        )
