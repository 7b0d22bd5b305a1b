"""``head``: a classification head on an encoder gives a class or a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quanta_bench.errors import UsageError
from quanta_bench.plugins import find_task
from quanta_bench.protocol import Protocol
from quanta_bench.spec import EvaluationSpec, Loss, TrainingSpec
from quanta_bench.task import Example, Task

if TYPE_CHECKING:
    import torch

    from quanta_bench.evaluation.evaluators import Context, Judged
    from quanta_bench.models.loading import LoadedModel, ModelRef
    from quanta_bench.training.objectives import Objective


class Head(Protocol):
    """One head a task: it starts at random, trains with any method and answers that task alone."""

    name = "head"
    prompts = False

    def compares(self, task: Task) -> bool:
        """Never: classes are outputs, not texts with likelihoods."""
        return False

    def losses(self, task: Task) -> tuple[Loss, ...]:
        """Over the labels."""
        return ("labels",)

    def check(self, training: TrainingSpec, evaluation: EvaluationSpec) -> None:
        """Refuse what a model with a classification head cannot do.

        Raises:
            UsageError: says what that is.
        """
        if training.protocol != evaluation.protocol:
            raise UsageError(
                "A classification head answers only the task that it was trained on: training and "
                "evaluation must both have the protocol 'head', and here "
                f"{training.method!r} is trained as {training.protocol!r} and scored as "
                f"{evaluation.protocol!r}."
                if training.tasks
                else f"The method {training.method!r} trains nothing, and a classification head "
                "that is not trained answers at random. Choose a method that trains."
            )
        if training.quantization != "none":
            raise UsageError(
                f"training.quantization={training.quantization} is for language models; an encoder "
                "with a classification head is kept as it is: leave it out."
            )
        if training.chat_template or evaluation.chat_template:
            raise UsageError(
                "A classification head reads an item's texts, not a prompt, so there is nothing to "
                "put in a chat template: leave chat_template out."
            )
        tasks = {*training.tasks, *evaluation.tasks}
        if len(tasks) != 1:
            raise UsageError(
                f"A classification head answers one task, and these are {', '.join(sorted(tasks))}:"
                " run each by itself ('trained: apart' in a suite)."
            )
        if evaluation.forgetting:
            raise UsageError(
                "A model with a classification head predicts no text, so what it forgot of "
                f"{evaluation.forgetting!r} cannot be measured: leave evaluation.forgetting empty."
            )
        task = find_task(tasks.pop())
        if self.accepts(task) and task.outputs < 1:
            raise UsageError(
                f"The task {task.name!r} does not say how many outputs a classification head has "
                "for it (outputs)."
            )

    def load(self, spec: TrainingSpec, reference: ModelRef, dtype: torch.dtype) -> LoadedModel:
        """The encoder, with a new head for the spec's one task."""
        from quanta_bench.models.loading import load_classifier

        outputs = find_task(spec.tasks[0]).outputs
        return load_classifier(reference, dtype, outputs=outputs, seed=spec.seeds.init)

    def new_parameters(self, model: Any) -> Mapping[str, Any]:
        """The head's."""
        from quanta_bench.models.heads import head_of

        return head_of(model)

    def objective(self, spec: TrainingSpec) -> Objective[Any, Any]:
        """Classes, or a number."""
        from quanta_bench.training.objectives import Labels

        return Labels(spec)

    def evaluate(self, context: Context, task: Task, examples: Sequence[Example]) -> list[Judged]:
        """Ask the head."""
        from quanta_bench.evaluation.evaluators import classify

        return classify(context, task, examples)

    def chance(self, task: Task, examples: Sequence[Example]) -> float | None:
        """By the number of classes; a single output has none."""
        classes = [task.outputs] * len(examples) if task.outputs > 1 else []
        return task.chance(examples, classes)

    def scoring(self, normaliser: str) -> str:
        """By the head."""
        return "answered by a classification head"
