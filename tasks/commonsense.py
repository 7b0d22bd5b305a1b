"""What the eight commonsense tasks have in common.

A task of this family defines the format of its published rows, LLM-Adapters' instructions and its
own text prompt. Row locations, splits, prompts and judging are shared here.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from quanta_bench.task import (
    Answer,
    BenchError,
    Example,
    Prompt,
    Source,
    Split,
    Task,
    UsageError,
    did_you_mean,
)
from tasks.llm_adapters import Layout, answer_sentence, wrap
from tasks.places import Places, read_split, twin_key

Fields = Mapping[str, Any]


class CommonsenseTask(Task):
    """A multiple-choice task of the commonsense table.

    ``fields`` of its items hold ``choices`` and what the methods below add. Raise
    ``template_version`` when a change of places, twins or fields moves items between splits, as
    for a change of a template.
    """

    protocols: tuple[str, ...] = ("choice-text", "choice-label", "generate")
    max_new_tokens = 32
    # LLM-Adapters takes the first label within 32 tokens, on any line.
    stop = ()

    layout: ClassVar[Layout]
    places: ClassVar[Places]

    # --- what a task defines ---------------------------------------------------------------

    @abstractmethod
    def published(self, row: Mapping[str, Any]) -> tuple[Fields, int]:
        """Fields and correct choice of a row as the data set's authors publish it."""

    @abstractmethod
    def twin(self, fields: Fields) -> str:
        """The text that near-twins share."""

    @abstractmethod
    def text(self, fields: Fields) -> tuple[str, tuple[str, ...]]:
        """Context and candidates of the ``choice-text`` protocol."""

    def statement(self, fields: Fields) -> str:
        """The question as written in an instruction."""
        return str(fields["question"])

    def fields(self, statement: str) -> Fields:
        """All fields except the choices, parsed from an instruction's question."""
        return {"question": statement}

    def labels(self, fields: Fields) -> tuple[str, ...]:
        """The names of the choices."""
        return self.layout.labels(len(fields["choices"]))

    @property
    def known_labels(self) -> tuple[str, ...]:
        """Every label to look for in a generated text."""
        return self.layout.labels(self.layout.most)

    def instruction(self, fields: Fields) -> str:
        """LLM-Adapters' instruction for an item."""
        return self.layout.write(self.statement(fields), fields["choices"])

    def parse(self, instruction: str) -> Fields:
        """The fields of an instruction; the inverse of :meth:`instruction`."""
        statement, choices = self.layout.read(instruction)
        return {**self.fields(statement), "choices": choices}

    # --- from rows to items -----------------------------------------------------------------

    def examples(self, source: Source, split: Split) -> list[Example]:
        """All items of a split, in row order."""
        return read_split(self, getattr(self.places, source.kind), source, split, self.example)

    def example(self, row: Mapping[str, Any], name: str) -> Example:
        """The item of a row in the format of its authors or of LLM-Adapters.

        Raises:
            KeyError, ValueError, TypeError, AttributeError: the row is neither.
        """
        if "instruction" in row:
            fields = self.parse(row["instruction"])
            gold = self.labels(fields).index(row["answer"])
        else:
            fields, gold = self.published(row)
        # Hidden labels are published as -1 or "", and -1 is a valid index in Python.
        if not 0 <= gold < len(fields["choices"]):
            raise ValueError(f"no choice has the label {gold}")
        return Example(name, twin_key(self.twin(fields)), fields, gold)

    # --- from items to text and back --------------------------------------------------------

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """The item's prompt under a protocol."""
        if protocol not in self.protocols:
            raise UsageError(
                f"The task {self.reference!r} does not support the protocol {protocol!r}. "
                f"{did_you_mean(protocol, self.protocols)}"
            )
        template = {
            "choice-text": self._choice_text_prompt,
            "choice-label": self._choice_label_prompt,
            "generate": self._generation_prompt,
        }[protocol]
        return template(example.fields, right_choice(example))

    def _choice_text_prompt(self, fields: Fields, gold: int) -> Prompt:
        context, candidates = self.text(fields)
        return Prompt(context, candidates, candidates[gold])

    def _choice_label_prompt(self, fields: Fields, gold: int) -> Prompt:
        candidates = tuple(f" {answer_sentence(label)}." for label in self.labels(fields))
        return Prompt(f"{self.instruction(fields)}\nAnswer:", candidates, candidates[gold])

    def _generation_prompt(self, fields: Fields, gold: int) -> Prompt:
        context, space = wrap(self.instruction(fields))
        return Prompt(context, target=f"{space}{answer_sentence(self.labels(fields)[gold])}")

    def judge_text(self, example: Example, text: str) -> Answer:
        """Judge the first label in a generated text, as LLM-Adapters does.

        A label that the data set uses but this item lacks, such as ``answer4`` for three choices,
        still counts as the answer, and is wrong.
        """
        match = re.search("|".join(self.known_labels), text)
        predicted = match.group() if match else None
        gold = self.labels(example.fields)[right_choice(example)]
        return Answer(predicted, gold, {self.metric: float(predicted == gold)})


def right_choice(example: Example) -> int:
    """The index of an item's correct choice."""
    if example.gold is None:
        raise BenchError(f"Item {example.id} has no correct choice.")
    return example.gold
