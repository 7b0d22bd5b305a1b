"""The items of a finished run as the model saw them; records keep their ids and scores alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quanta_bench.data.chat import uses_chat
from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError
from quanta_bench.export.stored import StoredRun
from quanta_bench.plugins import find_protocol
from quanta_bench.report.prompts import context_seen
from quanta_bench.results.records import Result
from quanta_bench.task import Example, Prompt, Task


@dataclass(frozen=True)
class Asked:
    """One item that a run was asked.

    Attributes:
        example: the item.
        text: what the model read before an answer.
        choices: the candidates that were compared; none where an answer was written or predicted.
        target: the right continuation, or the text that was predicted.
        line: its line of the run's predictions.
    """

    example: Example
    text: str
    choices: tuple[str, ...]
    target: str
    line: Mapping[str, Any]

    @property
    def prompt(self) -> Prompt:
        """What the model was asked, as a prompt."""
        return Prompt(self.text, self.choices, self.target)

    @property
    def reference(self) -> str:
        """The right answer: a candidate, a text, or the number of a class."""
        gold = self.line["gold"]
        return str(self.choices[gold] if self.choices else gold)

    @property
    def answers(self) -> tuple[str, ...]:
        """What the model answered: the text that it wrote, or the likeliest candidate.

        Several candidates where these tie; nothing where a text was predicted.
        """
        if "text" in self.line:
            return (self.line["text"],)
        chosen = self.line["prediction"]
        numbers = self.line.get("tied", ()) if chosen is None else (chosen,)
        return tuple(str(self.choices[n] if self.choices else n) for n in numbers)


def asked(run: StoredRun, reference: str, pools: Pools) -> tuple[Task, list[Asked]]:
    """A task and the items of it that a run was scored on, in the order of its predictions.

    Args:
        run: the run.
        reference: one of its tasks.
        pools: where items come from.

    Raises:
        BenchError: the run's predictions are not stored, or the data have changed since.
        SourceError: the data cannot be read.
    """
    result, spec = run.result, run.result.evaluation
    lines = run.store.predictions(result.run)
    if lines is None:
        raise BenchError(f"The run {result.run} has no predictions stored: its items are unknown.")
    pool = pools.get(reference, spec.source, spec.split)
    if pool.identity != result.tasks[reference].data:
        raise BenchError(
            f"The items of {reference} are not those that the run {result.run} was scored on: "
            "their data or prompts have changed since."
        )
    examples = {example.id: example for example in pool.examples}
    return pool.task, [
        _asked(result, reference, pool.task, examples[line["id"]], line)
        for line in lines
        if line["task"] == reference
    ]


def _asked(
    result: Result, reference: str, task: Task, example: Example, line: Mapping[str, Any]
) -> Asked:
    protocol = result.evaluation.protocol
    if not find_protocol(protocol).prompts:
        return Asked(example, "\n".join(task.texts(example)), (), "", line)
    text, _ = context_seen(result, reference, task, example)
    prompt = task.prompt(example, protocol)
    compared = task.kind != "perplexity" and "log_likelihoods" in line
    choices, target = prompt.candidates if compared else (), prompt.target
    if uses_chat(task, result.evaluation.chat_template):
        # The template writes what stands before an answer.
        choices, target = tuple(choice.strip() for choice in choices), target.strip()
    return Asked(example, text, choices, target, line)
