"""The interface of a protocol: how items become prompts, are trained on and scored.

A protocol is one file: what it accepts, how its training items are encoded, what is minimised and
how answers are scored. It is registered under ``quanta_bench.protocols``; the rest of the suite
asks it what it does and does not go by its name. Its modules import torch only inside methods, so
that plans and listings stay fast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from quanta_bench.spec import EvaluationSpec, Loss, TrainingSpec
from quanta_bench.task import Example, Task


class Protocol(ABC):
    """A protocol. Subclass, set the class attributes, register it.

    Class attributes:
        name: the registered name.
        prompts: whether the model is a language model that reads :meth:`Task.prompt`; otherwise it
            reads :meth:`Task.texts`.
        generates: whether answers of tasks that choose are generated and parsed.
        closed: whether a continuation that is trained on ends with the end token.
    """

    name: ClassVar[str]
    prompts: ClassVar[bool] = True
    generates: ClassVar[bool] = False
    closed: ClassVar[bool] = False

    # --- what it accepts ------------------------------------------------------------------------

    def accepts(self, task: Task) -> bool:
        """Whether a task supports this protocol; a text to predict is the same under any prompt."""
        return self.name in task.protocols or (task.kind == "perplexity" and self.prompts)

    @abstractmethod
    def compares(self, task: Task) -> bool:
        """Whether an item's candidates are compared by their likelihoods."""

    @abstractmethod
    def losses(self, task: Task) -> tuple[Loss, ...]:
        """The losses that a task can be trained with, the default first."""

    def check(self, training: TrainingSpec, evaluation: EvaluationSpec) -> None:  # noqa: B027
        """Refuse a pair of specs, one of which names this protocol, that cannot be run.

        Raises:
            UsageError: says what to change.
        """

    # --- what it computes -----------------------------------------------------------------------

    @abstractmethod
    def load(self, spec: TrainingSpec, reference: Any, dtype: Any) -> Any:
        """Load a run's base model.

        Args:
            spec: the training spec.
            reference: the model, a :class:`quanta_bench.models.loading.ModelRef`.
            dtype: the ``torch.dtype`` of its weights.

        Returns:
            A :class:`quanta_bench.models.loading.LoadedModel`.
        """

    def new_parameters(self, model: Any) -> Mapping[str, Any]:
        """The base model's parameters that are not pretrained and have to train, by name."""
        return {}

    @abstractmethod
    def objective(self, spec: TrainingSpec) -> Any:
        """A training's :class:`quanta_bench.training.objectives.Objective`."""

    @abstractmethod
    def evaluate(self, context: Any, task: Task, examples: Sequence[Example]) -> list[Any]:
        """Score items.

        Args:
            context: a :class:`quanta_bench.evaluation.evaluators.Context`.
            task: the task.
            examples: its items.

        Returns:
            One :class:`quanta_bench.evaluation.evaluators.Judged` an item, in order.
        """

    @abstractmethod
    def chance(self, task: Task, examples: Sequence[Example]) -> float | None:
        """A task's main metric under uniform guessing, or ``None`` if undefined."""

    # --- what it is called ----------------------------------------------------------------------

    @abstractmethod
    def scoring(self, normaliser: str) -> str:
        """How answers are scored, in the words of a note: ``scored by token_mean``."""
