"""``choice-text`` and ``choice-label``: candidates are compared by their likelihoods.

The two differ in what a task writes: the choices in words, or, as in the QuanTA paper,
LLM-Adapters' instruction with labels as candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from quanta_bench.protocol import Protocol
from quanta_bench.spec import Loss, TrainingSpec
from quanta_bench.task import Example, Task

if TYPE_CHECKING:
    import torch

    from quanta_bench.evaluation.evaluators import Context, Judged
    from quanta_bench.models.loading import LoadedModel, ModelRef
    from quanta_bench.training.objectives import Objective


class ChoiceText(Protocol):
    """The choices in words."""

    name = "choice-text"

    def compares(self, task: Task) -> bool:
        """Where the task chooses; a text to predict has no other candidates."""
        return task.chooses

    def losses(self, task: Task) -> tuple[Loss, ...]:
        """Over candidates where there are any, and language modelling."""
        language: tuple[Loss, ...] = ("answer", "answer+prompt")
        return ("candidates", *language) if self.compares(task) else language

    def load(self, spec: TrainingSpec, reference: ModelRef, dtype: torch.dtype) -> LoadedModel:
        """The causal language model."""
        from quanta_bench.models.loading import load_model

        return load_model(reference, dtype, quantization=spec.quantization)

    def objective(self, spec: TrainingSpec) -> Objective[Any, Any]:
        """Continuations, compared with each other or trained on as text."""
        from quanta_bench.training.objectives import Continuations

        return Continuations(spec, closed=self.closed)

    def evaluate(self, context: Context, task: Task, examples: Sequence[Example]) -> list[Judged]:
        """By the task's kind."""
        from quanta_bench.evaluation.evaluators import BY_KIND

        return BY_KIND[task.kind](context, task, examples)

    def chance(self, task: Task, examples: Sequence[Example]) -> float | None:
        """By each item's number of candidates."""
        if not self.compares(task):
            return None
        return task.chance(
            examples, [len(task.prompt(example, self.name).candidates) for example in examples]
        )

    def scoring(self, normaliser: str) -> str:
        """By likelihood, made comparable across lengths."""
        return f"scored by {normaliser}"


class ChoiceLabel(ChoiceText):
    """The labels of the choices, which the prompt lists."""

    name = "choice-label"
