"""The interface of a task: where its rows lie, how they become prompts, how answers are judged.

A task plug-in imports this module and, to read files of any format, :mod:`quanta_bench.rows`;
nothing else of the suite.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from quanta_bench.errors import BenchError, MissingDataError, SourceError, UsageError, did_you_mean
from quanta_bench.splits import Fractions, split_by_group

__all__ = [
    "Answer",
    "BenchError",
    "Example",
    "Fractions",
    "HubRows",
    "JsonRows",
    "Kind",
    "LineRows",
    "Location",
    "MissingDataError",
    "Prompt",
    "RequestRows",
    "SavedRows",
    "Source",
    "SourceError",
    "Split",
    "Task",
    "TsvRows",
    "UsageError",
    "UserRows",
    "did_you_mean",
    "same_text",
    "split_by_group",
]

DEFAULT_NEW_TOKENS = 32
"""Tokens of a generated answer where neither its task nor a longer right answer asks for others."""

Kind = Literal["choice", "generate", "perplexity", "classify"]
Split = Literal["train", "validation", "test"]


# --- where rows lie ---------------------------------------------------------------------------


@dataclass(frozen=True)
class SavedRows:
    """A data set saved by ``datasets`` in the embedded data: ``"boolq/none/validation"``."""

    path: str


@dataclass(frozen=True)
class RequestRows:
    """The distinct ``doc`` entries of an embedded request file: ``"gsm8k/gold_bpb_5shot"``."""

    path: str


@dataclass(frozen=True)
class HubRows:
    """One split of a data set on the hub. Never runs a loading script."""

    name: str
    config: str | None
    split: str
    revision: str = "main"


@dataclass(frozen=True)
class JsonRows:
    """A JSON list or JSON-lines file, by its path inside a ``local:`` folder."""

    path: str


@dataclass(frozen=True)
class TsvRows:
    """A tab-separated file, by its path inside a ``local:`` folder. Quotes are plain characters.

    Attributes:
        path: the file.
        columns: names of the columns, where the file's first line does not give them.
    """

    path: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class LineRows:
    """A text file, by its path inside a ``local:`` folder; a line is a row ``{"text": line}``."""

    path: str


@dataclass(frozen=True)
class UserRows:
    """A file of rows that the user named (JSON lines, JSON, CSV, TSV, Parquet), not in a source."""

    path: str


Location = SavedRows | RequestRows | HubRows | JsonRows | TsvRows | LineRows | UserRows


class Source(Protocol):
    """What a task sees of a data source."""

    @property
    def kind(self) -> Literal["embedded", "hub", "local"]:
        """Which kind of source this is; a task keeps one set of locations for each it knows."""

    def rows(self, location: Location) -> list[dict[str, Any]]:
        """All rows at a location, in file order.

        Raises:
            MissingDataError: the source has no such rows; says what was looked for, where, and what
                would work instead.
            SourceError: the rows are there and cannot be read.
        """


# --- one item ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """One item of a task.

    Attributes:
        id: stable and unique within the task, whatever the split or the sample.
        group: items that share it are near-duplicates and never fall into different splits.
        fields: the item's own content, as the task's templates use it.
        gold: index of the right candidate (choice, classify).
        references: accepted answers (generate), or the text to predict (perplexity).
    """

    id: str
    group: str
    fields: Mapping[str, Any]
    gold: int | None = None
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """What the model sees of an item.

    Attributes:
        context: text before the answer; if it is empty, a start token takes its place.
        tail: the end of the context, which is never cut. If the context is too long, it is
            truncated just before the tail; if the tail is empty, at its beginning.
        candidates: continuations to compare, each with its leading space where it has one.
        target: the continuation to learn from or to be generated; for a choice this is the right
            candidate.
    """

    context: str
    candidates: tuple[str, ...] = ()
    target: str = ""
    tail: str = ""

    def __post_init__(self) -> None:
        if not self.context.endswith(self.tail):
            raise ValueError(f"the context does not end with {self.tail!r}")


@dataclass(frozen=True)
class Answer:
    """A judged answer.

    Attributes:
        prediction: what the model answered, as parsed; ``None`` if nothing could be parsed.
        gold: what was right.
        scores: value of each per-item metric in [0, 1]. Holds the task's main metric where single
            items have it; F1 or a correlation is made by :meth:`Task.aggregate` from all answers.
    """

    prediction: str | int | float | None
    gold: str | int
    scores: Mapping[str, float] = field(default_factory=dict)


def same_text(one: str, other: str) -> bool:
    """Whether two texts are equal but for case, outer spaces and Unicode's compositions.

    Tokenizers normalise text in different ways: an "é" that is trained as two characters may come
    back as one, and a full-width letter as a plain one. So both sides are compared in Unicode's
    NFKC with case folded, which distinguishes no more than any of these normalisations.
    """
    return _folded(one) == _folded(other)


def _folded(text: str) -> str:
    # Folding case may decompose characters again.
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", folded).strip()


# --- the task ---------------------------------------------------------------------------------


class Task(ABC):
    """A benchmark task. Subclass, set the class attributes, register under ``quanta_bench.tasks``.

    Class attributes:
        name: the registered name.
        title: the column heading in tables.
        kind: what the model has to do.
        metric: the metric that tables show.
        metrics: every metric of :meth:`aggregate`, where these are more than that one. A table's
            columns can name them; what the suite itself adds (perplexities, other normalisers) is
            left out.
        protocols: registered protocols under which the task can be run, the default first.
        version: raised when answers are judged differently; stored with every result.
        template_version: raised whenever the text a model sees changes; enters every run's hash.
        outputs: number of outputs of the classification head under the protocol ``head``: one per
            class, or one to predict a number; 0 for a task without this protocol. Other tasks
            define :meth:`texts` and, to predict a number, :meth:`target` and
            :meth:`judge_value`.
        max_new_tokens: bound on generated answers, in tokens; ``None`` for as many as the longest
            right answer takes, and at least `DEFAULT_NEW_TOKENS`.
        stop: strings that end a generated answer.
        chat_template: whether its prompts are always put in the model's chat template, without a
            setting that says so.
        grouped_by: what items of a group share, in words, such as ``passage``.
        reads_source: whether its items come from the source of the run, rather than from a file of
            the user's own.

    Args:
        argument: what follows the colon in ``--task name:argument``; most tasks take none.
    """

    name: ClassVar[str]
    title: str
    kind: Kind = "choice"
    metric: str = "accuracy"
    metrics: ClassVar[tuple[str, ...]] = ()
    protocols: tuple[str, ...] = ("choice-text",)
    outputs: int = 0
    version: ClassVar[int] = 1
    template_version: int = 1
    max_new_tokens: int | None = None
    stop: ClassVar[tuple[str, ...]] = ("\n",)
    chat_template: bool = False
    grouped_by: ClassVar[str] = ""
    reads_source: bool = True

    def __init__(self, argument: str | None = None) -> None:
        if argument is not None:
            raise UsageError(
                f"The task {self.name!r} takes no argument; write {self.name!r} "
                f"instead of {self.name + ':' + argument!r}."
            )

    @property
    def chooses(self) -> bool:
        """Whether an item's answer is one of a few candidates.

        A causal model classifies by choosing among the labels in words.
        """
        return self.kind in ("choice", "classify")

    @property
    def reference(self) -> str:
        """What names this task on the command line: ``name`` or ``name:argument``."""
        return self.name

    @abstractmethod
    def examples(self, source: Source, split: Split) -> Sequence[Example]:
        """All items of a split, in a fixed order.

        Raises:
            MissingDataError: the source has no rows for this task or this split; tables leave the
                task out and say why.
            SourceError: a row has another form; names it.
        """

    @abstractmethod
    def prompt(self, example: Example, protocol: str) -> Prompt:
        """The item's prompt under a protocol, by its registered name."""

    def texts(self, example: Example) -> tuple[str, ...]:
        """The one or two texts of an item that an encoder reads under the protocol ``head``."""
        raise BenchError(f"The task {self.name!r} does not say what an encoder reads of an item.")

    def target(self, example: Example) -> float:
        """The target of a classification head: the number of the class, or the number to predict.

        Raises:
            BenchError: the item has none.
        """
        if example.gold is None:
            raise BenchError(f"Item {example.id} of {self.name} has no label.")
        return example.gold

    def judge_value(self, example: Example, value: float) -> Answer:
        """Judge a number that a head predicts, where the task has a single output."""
        raise BenchError(f"The task {self.name!r} does not say how a predicted number is judged.")

    def judge_choice(self, example: Example, chosen: int) -> Answer:
        """Judge a chosen candidate, or a class."""
        if example.gold is None:
            raise BenchError(f"Item {example.id} of {self.name} has no right candidate.")
        return Answer(chosen, example.gold, {self.metric: float(chosen == example.gold)})

    def judge_text(self, example: Example, text: str) -> Answer:
        """Parse a generated text and judge it. Default: the :func:`same_text` as a reference."""
        answer = text.strip()
        right = any(same_text(answer, reference) for reference in example.references)
        gold = example.references[0] if example.references else ""
        return Answer(answer or None, gold, {self.metric: float(right)})

    def aggregate(self, answers: Sequence[Answer]) -> dict[str, float]:
        """Metrics over a split, as fractions. Default: the mean of each per-item score."""
        names = {name for answer in answers for name in answer.scores}
        return {
            name: sum(answer.scores.get(name, 0.0) for answer in answers) / len(answers)
            for name in sorted(names)
        }

    def words(self, example: Example) -> int | None:
        """Words of the text to predict, for a perplexity per word; ``None`` leaves that out."""
        return None

    def chance(self, examples: Sequence[Example], choices: Sequence[int]) -> float | None:
        """The main metric of uniform guessing over these items, or ``None`` if undefined.

        Args:
            examples: the items.
            choices: among how many candidates or classes each item is guessed; empty where nothing
                is chosen.
        """
        if not self.chooses or not choices:
            return None
        return sum(1 / count for count in choices) / len(choices)
