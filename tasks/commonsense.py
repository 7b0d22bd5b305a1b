"""What the eight commonsense tasks have in common.

A task of this family says how its published rows, LLM-Adapters' instructions and its own text
prompt look; where rows come from, how they are split, put to a model and judged is here.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from quanta_bench.task import (
    Answer,
    BenchError,
    Example,
    Fractions,
    HubRows,
    JsonRows,
    Location,
    Prompt,
    Source,
    SourceError,
    Split,
    Task,
    UsageError,
    did_you_mean,
    split_by_group,
)
from tasks.llm_adapters import Layout, answer_sentence, wrap

Fields = Mapping[str, Any]

CUT = Fractions(train=0.5, validation=0.1)
"""Of rows that have to serve as all three splits: at least 300 test items of each embedded task."""

CARVED = Fractions(train=0.9, validation=0.1)
"""Of a published training set, where the test split lies elsewhere."""


@dataclass(frozen=True)
class Place:
    """Where one kind of source keeps a task's rows.

    Attributes:
        pool: rows that are cut, by group, into the splits which have no location of their own.
        validation: location of a published validation split.
        test: location of a published test split.
        fractions: how the pool is cut.
        disjoint: leave out pool rows whose group is also in the test split. Published splits
            that are compared with other papers' figures are left as they are.
    """

    pool: Location
    validation: Location | None = None
    test: Location | None = None
    fractions: Fractions = CUT
    disjoint: bool = False


@dataclass(frozen=True)
class Places:
    """Where a task's rows lie in each kind of source."""

    embedded: Place
    hub: Place
    local: Place


def hub(name: str, config: str | None = None, revision: str = "main") -> Place:
    """A data set on the hub whose test labels are hidden: its validation rows are the test."""
    return Place(
        HubRows(name, config, "train", revision),
        test=HubRows(name, config, "validation", revision),
        fractions=CARVED,
    )


def local(folder: str) -> Place:
    """A data set's folder in a checkout of LLM-Adapters."""
    return Place(
        JsonRows(f"dataset/{folder}/train.json"),
        test=JsonRows(f"dataset/{folder}/test.json"),
        fractions=CARVED,
    )


def twin_key(text: str) -> str:
    """A short name for a text that ignores case, spaces and punctuation.

    Data sets hold copies that differ in nothing else ("Plastic wrap", "plastic wrap").
    """
    letters = "".join(char for char in text.casefold() if char.isalnum()) or text
    return hashlib.sha256(letters.encode()).hexdigest()[:16]


class CommonsenseTask(Task):
    """A multiple-choice task of the commonsense table.

    ``fields`` of its items hold ``choices`` and whatever the methods below put there. A change of
    places, twins or fields that moves items between splits raises ``template_version``, as a
    change of a template does.
    """

    protocols: tuple[str, ...] = ("choice-text", "choice-label", "generate")
    max_new_tokens = 32
    # LLM-Adapters takes the first label in 32 tokens, whatever line it stands on.
    stop = ()

    layout: ClassVar[Layout]
    places: ClassVar[Places]

    # --- what a task says of itself ---------------------------------------------------------

    @abstractmethod
    def published(self, row: Mapping[str, Any]) -> tuple[Fields, int]:
        """Fields and right choice of a row as the data set's authors publish it."""

    @abstractmethod
    def twin(self, fields: Fields) -> str:
        """The text that near-twins share."""

    @abstractmethod
    def text(self, fields: Fields) -> tuple[str, tuple[str, ...]]:
        """Context and candidates of the ``choice-text`` protocol."""

    def statement(self, fields: Fields) -> str:
        """The question as it stands in an instruction."""
        return str(fields["question"])

    def fields(self, statement: str) -> Fields:
        """All fields but the choices, from the question as it stands in an instruction."""
        return {"question": statement}

    def labels(self, fields: Fields) -> tuple[str, ...]:
        """The names of the choices."""
        return self.layout.labels(len(fields["choices"]))

    @property
    def known_labels(self) -> tuple[str, ...]:
        """Every label that a generated text is searched for."""
        return self.layout.labels(self.layout.most)

    def instruction(self, fields: Fields) -> str:
        """LLM-Adapters' instruction for an item."""
        return self.layout.write(self.statement(fields), fields["choices"])

    def parse(self, instruction: str) -> Fields:
        """The fields of an instruction; the reverse of :meth:`instruction`."""
        statement, choices = self.layout.read(instruction)
        return {**self.fields(statement), "choices": choices}

    # --- from rows to items -----------------------------------------------------------------

    def examples(self, source: Source, split: Split) -> list[Example]:
        """All items of a split, in the order of their rows."""
        place: Place = getattr(self.places, source.kind)
        whole = {"validation": place.validation, "test": place.test}.get(split)
        if whole is not None:
            return self._read(source, whole, split)
        pool = self._read(source, place.pool, "pool")
        if place.disjoint and place.test is not None:
            held_out = {example.group for example in self._read(source, place.test, "test")}
            pool = [example for example in pool if example.group not in held_out]
        return split_by_group(pool, lambda example: example.group, split, place.fractions)

    def _read(self, source: Source, location: Location, part: str) -> list[Example]:
        examples = []
        for number, row in enumerate(source.rows(location)):
            try:
                examples.append(self.example(row, f"{self.name}/{part}/{number}"))
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                raise SourceError(
                    f"Row {number} of {location} is not a {self.title} row: "
                    f"{type(error).__name__}: {error}."
                ) from error
        return examples

    def example(self, row: Mapping[str, Any], name: str) -> Example:
        """The item of a row, as its authors or LLM-Adapters publish it.

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
        """The item as the protocol puts it to a model."""
        if protocol not in self.protocols:
            raise UsageError(
                f"The task {self.reference!r} cannot be put as {protocol!r}. "
                f"{did_you_mean(protocol, self.protocols)}"
            )
        gold = right_choice(example)
        if protocol == "choice-text":
            context, candidates = self.text(example.fields)
            return Prompt(context, candidates, candidates[gold])
        instruction, labels = self.instruction(example.fields), self.labels(example.fields)
        if protocol == "choice-label":
            candidates = tuple(f" {answer_sentence(label)}." for label in labels)
            return Prompt(f"{instruction}\nAnswer:", candidates, candidates[gold])
        context, space = wrap(instruction)
        return Prompt(context, target=f"{space}{answer_sentence(labels[gold])}")

    def judge_text(self, example: Example, text: str) -> Answer:
        """Judge the first label in a generated text, as LLM-Adapters does.

        A label that the data set knows and this item lacks, such as ``answer4`` of three choices,
        counts as the answer all the same, and is wrong.
        """
        found = re.search("|".join(self.known_labels), text)
        said = found.group() if found else None
        gold = self.labels(example.fields)[right_choice(example)]
        return Answer(said, gold, {self.metric: float(said == gold)})

    def chance(self, examples: Sequence[Example], protocol: str) -> float | None:
        """Accuracy of guessing one of the choices; words that are generated have none."""
        return None if protocol == "generate" else super().chance(examples, protocol)


def right_choice(example: Example) -> int:
    """The index of an item's right choice."""
    if example.gold is None:
        raise BenchError(f"Item {example.id} has no right choice.")
    return example.gold
