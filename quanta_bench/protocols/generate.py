"""``generate``: the model writes its answer, and the task parses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quanta_bench.protocols.choice import ChoiceText
from quanta_bench.task import Example, Task

if TYPE_CHECKING:
    from quanta_bench.evaluation.evaluators import Context, Judged


class Generate(ChoiceText):
    """Answers in the model's own words; training teaches it to end them."""

    name = "generate"
    generates = True
    closed = True

    def compares(self, task: Task) -> bool:
        """Never: a generated answer may be none of the candidates."""
        return False

    def evaluate(self, context: Context, task: Task, examples: Sequence[Example]) -> list[Judged]:
        """Generate answers to choices too; predict texts."""
        from quanta_bench.evaluation.evaluators import answer

        if task.chooses:
            return answer(context, task, examples)
        return super().evaluate(context, task, examples)

    def scoring(self, normaliser: str) -> str:
        """By parsing; nothing is normalised."""
        return "answers generated and parsed"
