"""A user's own data: ``--task file:PATH``, or ``jsonl:PATH``, the same under its older name.

The file extension selects the format: JSON lines, a JSON list, CSV, TSV or Parquet. Each row has
``prompt`` and either

- ``choices`` and ``answer``, the correct choice's text or its 0-based index: a choice task; or
- ``target``, or ``answers`` if several are accepted: the generated answer must equal one of them,
  ignoring case, surrounding whitespace and Unicode normalisation form. An answer is one line.

In CSV and TSV the first line names the columns, and a cell of ``choices`` or ``answers`` is a JSON
list or strings separated by ``|``.

Optional: ``split`` (train, validation or test; in all rows or in none) and ``group`` (a string or
an integer: rows of a group never end up in different splits; by default, rows with the same prompt
form a group). Without ``split``, a stable hash assigns groups: 60 % train, 20 % validation, 20 %
test. A null value or an empty cell counts as absent.

Rows of another form: a mapping in YAML, ``file:PATH.yaml``, says how they become items
(:mod:`tasks.mapping`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, get_args

from quanta_bench.rows import TEXT_TABLES, parse_json, read_rows, user_path
from quanta_bench.task import (
    Answer,
    Example,
    Fractions,
    Location,
    MissingDataError,
    Prompt,
    Source,
    Split,
    Task,
    UsageError,
    UserRows,
    did_you_mean,
    split_by_group,
)
from tasks.places import CARVED, parse_once

if TYPE_CHECKING:
    from tasks.mapping import RowMapping

SHARES = Fractions(train=0.6, validation=0.2)
MAPPINGS = (".yaml", ".yml")

Rows = list[dict[str, Any]]


class JsonLines(Task):
    """Rows from your own file: JSON lines, a JSON list, CSV, TSV or Parquet.

    Each row has ``prompt`` and either ``choices`` with ``answer`` (the correct choice's text or its
    0-based index), or ``target``, or ``answers`` if several are accepted. Optional: ``split``
    (train, validation or test) and ``group`` (rows of a group stay in one split). In CSV and TSV,
    ``choices`` and ``answers`` are JSON lists or strings separated by ``|``.

    Rows of another form need a mapping, a YAML file with ``data``, templates of ``prompt`` and of
    ``choices`` and ``answer`` or ``target``, and if need be ``metric``, ``group`` and ``split``.

    The whole file is validated before anything is computed.

    Args:
        argument: path to the file of rows, or to a mapping (``.yaml``).
    """

    name = "jsonl"
    title = "Your own file"
    grouped_by = "prompt, or the file's own groups"
    reads_source = False

    def __init__(self, argument: str | None = None) -> None:
        if not argument:
            raise UsageError(f"The task {self.name!r} needs a file; write '{self.name}:PATH'.")
        self._path = argument
        _check_file(argument)
        self.title = Path(argument).stem
        self._mapping: RowMapping | None = None
        self._parts: tuple[tuple[Location, Split | None], ...] = ((UserRows(argument), None),)
        if Path(argument).suffix.lower() in MAPPINGS:
            self._take(argument)
        self._items: dict[tuple[Location, Split | None], tuple[Rows, list[Example]]] = {}
        self._choose_kind(bool(self._mapping and self._mapping.chooses))
        self._read_files()

    def _choose_kind(self, chooses: bool) -> None:
        self.kind = "choice" if chooses else "generate"
        self.protocols = ("choice-text",) if chooses else ("generate",)

    def _read_files(self) -> None:
        """Make the items of the user's files, by which all of their rows are checked.

        Raises:
            UsageError: a file cannot be read, or a row is refused.
        """
        first: Mapping[str, Any] = {}
        for location, of in self._parts:
            if not isinstance(location, UserRows):
                continue
            rows = read_rows(location.path)
            items = []
            for number, (place, row) in enumerate(rows):
                values = self._normalised(row, location, place)
                if not first:
                    # All rows of a file are of one kind; the first row decides which.
                    first = values
                    self._choose_kind("choices" in values)
                items.append(self._example(values, place, self._name(of, number)))
                if ("split" in values) != ("split" in first):
                    raise UsageError(f"{place}: either all rows have the key 'split' or none has.")
            self._items[location, of] = [row for _, row in rows], items

    def _take(self, path: str) -> None:
        """Take what a mapping says of the task."""
        from tasks.mapping import read_mapping
        from tasks.metrics import CHOICE_METRICS

        mapping = read_mapping(path)
        self._mapping, self._parts = mapping, mapping.parts
        for location, _ in self._parts:
            if isinstance(location, UserRows):
                _check_file(location.path)
        self.title = mapping.file.title or self.title
        self.metric = mapping.file.metric
        if CHOICE_METRICS.get(self.metric) and mapping.chooses:
            self.metrics = (self.metric, "accuracy")  # type: ignore[misc]
        self.max_new_tokens = mapping.file.max_new_tokens
        self.chat_template = mapping.file.chat_template
        self.template_version = mapping.version
        self.reads_source = mapping.on_the_hub

    @property
    def reference(self) -> str:
        """The task's name on the command line."""
        return f"{self.name}:{self._path}"

    def examples(self, source: Source, split: Split) -> list[Example]:
        """All items of a split, in row order.

        Raises:
            MissingDataError: a mapping has data of other splits alone.
        """
        parts = {of: location for location, of in self._parts}
        # Without files of their own, validation items are cut from the training rows.
        pool: Split | None = None if None in parts else "train"
        whole = len(parts) > 1 and "validation" in parts
        if split in parts and (split != "train" or whole):
            return self._read(source, parts[split], split)
        if pool not in parts or (split == "test" and len(parts) > 1):
            raise MissingDataError(f"{self._path} names no data of the {split} split.")
        items = self._read(source, parts[pool], pool)
        if "split" in items[0].fields:
            chosen = [item for item in items if item.fields["split"] == split]
        else:
            chosen = split_by_group(items, lambda item: item.group, split, self._shares)
        if not chosen:
            raise UsageError(
                f"{self._path}: none of its {len(items)} rows falls into the {split} split; "
                f"add rows, or give each row a key 'split'."
            )
        return chosen

    @property
    def _shares(self) -> Fractions:
        return SHARES if len(self._parts) == 1 else CARVED

    def _read(self, source: Source, location: Location, of: Split | None) -> list[Example]:
        """The items of one location."""
        rows = source.rows(location)
        read, items = self._items.get((location, of), (None, []))
        if read == rows:
            return items
        # Rows of the hub, or of a file that has changed since.
        key = f"{self.reference} {of or ''}"
        return parse_once(source, key, rows, lambda: self._made(rows, location, of))

    def _normalised(self, row: Mapping[str, Any], location: Location, place: str) -> dict[str, Any]:
        """A row without absent values, with text cells parsed into lists where needed."""
        values = {key: value for key, value in row.items() if value is not None}
        cells = isinstance(location, UserRows) and Path(location.path).suffix.lower() in TEXT_TABLES
        if cells:
            values = {key: value for key, value in values.items() if value != ""}
        if self._mapping is not None:
            values = self._mapping.item(values, place)
        elif not cells:
            return values
        for key in {"choices", "answers"} & values.keys():
            if isinstance(values[key], str):
                values[key] = list_of_cell(values[key])
        choices, answer = values.get("choices"), values.get("answer")
        if choices and answer is not None and answer not in choices and is_index(answer):
            values["answer"] = int(answer)
        return values

    def _name(self, of: Split | None, number: int) -> str:
        """The name of an item: its place in a file or a split."""
        return f"{self.name}/{of}/{number}" if of else f"{self.name}/{number}"

    def _made(
        self, rows: Sequence[Mapping[str, Any]], location: Location, of: Split | None
    ) -> list[Example]:
        where = location.path if isinstance(location, UserRows) else self._path
        items = []
        for number, row in enumerate(rows):
            place = f"{where}, row {number + 1}"
            values = self._normalised(row, location, place)
            items.append(self._example(values, place, self._name(of, number)))
        return items

    def _example(self, row: Mapping[str, Any], place: str, name: str) -> Example:
        prompt = text_of(row, "prompt", place)
        fields: dict[str, Any] = {"prompt": prompt}
        if "split" in row:
            fields["split"] = row["split"]
            if row["split"] not in get_args(Split):
                raise UsageError(
                    f"{place}: 'split' is {row['split']!r}. "
                    f"{did_you_mean(str(row['split']), get_args(Split))}"
                )
        group = group_of(row, place) if "group" in row else ""
        group = group if group.strip() else prompt
        if self.kind == "choice":
            fields["choices"] = texts_of(row, "choices", place)
            return Example(name, group, fields, gold_of(row, fields["choices"], place))
        key = "answers" if "answers" in row else "target"
        answers = texts_of(row, key, place) if key == "answers" else (text_of(row, key, place),)
        if any("\n" in answer.strip() for answer in answers):
            raise UsageError(f"{place}: {key!r} holds a line break; answers are one line.")
        return Example(name, group, fields, references=answers)

    def judge_text(self, example: Example, text: str) -> Answer:
        """Equal to one of the answers or, with a mapping, as its metric says."""
        if self._mapping is None:
            return super().judge_text(example, text)
        answer = text.strip()
        score = self._mapping.score(answer, example.references)
        return Answer(answer or None, example.references[0], {self.metric: score})

    def judge_choice(self, example: Example, chosen: int) -> Answer:
        """By accuracy; a mapping's other metrics are of all answers (:meth:`aggregate`)."""
        judged = super().judge_choice(example, chosen)
        return replace(judged, scores={"accuracy": judged.scores[self.metric]})

    def aggregate(self, answers: Sequence[Answer]) -> dict[str, float]:
        """The mean of each item's scores and, with a mapping, its metric of all choices."""
        from tasks.metrics import CHOICE_METRICS

        means = super().aggregate(answers)
        metric = CHOICE_METRICS.get(self.metric) if self.kind == "choice" else None
        if metric is None:
            return means
        gold = [int(answer.gold) for answer in answers]
        chosen = [-1 if answer.prediction is None else int(answer.prediction) for answer in answers]
        return {**means, self.metric: metric(gold, chosen)}

    def chance(self, examples: Sequence[Example], choices: Sequence[int]) -> float | None:
        """Of accuracy, by the number of choices; of a correlation, 0; of an F1 it is not stated."""
        if self.metric == "matthews":
            return 0.0 if examples else None
        return super().chance(examples, choices) if self.metric == "accuracy" else None

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """The row's own text.

        " A" and "A" are different tokens, so the single space between prompt and answer always
        belongs to the answer, however the user wrote it. After a line break there is no space.
        """
        if protocol not in self.protocols:
            raise UsageError(
                f"The task {self.reference!r} does not support the protocol {protocol!r}. "
                f"{did_you_mean(protocol, self.protocols)}"
            )
        context = example.fields["prompt"].rstrip(" ")
        space = "" if not context or context.endswith("\n") else " "
        if example.gold is None:
            return Prompt(context, target=space + example.references[0].lstrip(" "))
        candidates = tuple(space + choice.lstrip(" ") for choice in example.fields["choices"])
        return Prompt(context, candidates, candidates[example.gold])


class UserFile(JsonLines):  # noqa: D101 - the same task under its newer name
    __doc__ = JsonLines.__doc__

    name = "file"


def _check_file(path: str) -> None:
    """Refuse a path that leads to no file."""
    file = user_path(path)
    if file.is_dir():
        raise UsageError(f"{path} is a folder; name a file of rows in it.")
    if not file.exists():
        raise UsageError(f"There is no file {path}.")


def list_of_cell(cell: str) -> Any:
    """Parse a cell of a text table into a list."""
    if cell.lstrip().startswith("["):
        try:
            return parse_json(cell)
        except json.JSONDecodeError:
            return cell  # rejected where a list is required
    return [text.strip() for text in cell.split("|")]


def is_index(cell: object) -> TypeGuard[str]:
    """Whether a cell is a non-negative integer, with no more digits than an index can have."""
    return isinstance(cell, str) and len(cell) < 10 and cell.isascii() and cell.isdecimal()


def value_of(row: Mapping[str, Any], key: str, place: str) -> Any:
    """A required value of a row."""
    if key not in row:
        raise UsageError(f"{place}: the key {key!r} is missing. The row has {', '.join(row)}.")
    return row[key]


def text_of(row: Mapping[str, Any], key: str, place: str) -> str:
    """A required value of a row: a non-blank string."""
    value = value_of(row, key, place)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{place}: {key!r} has to be a text that is not blank, not {value!r}.")
    return unicode_text(value, key, place)


def unicode_text(text: str, key: str, place: str) -> str:
    """Reject a text with an unpaired surrogate, which no tokenizer can encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{place}: {key!r} holds half of a surrogate pair, which is no Unicode text: {text!a}."
        ) from None
    return text


def texts_of(row: Mapping[str, Any], key: str, place: str) -> tuple[str, ...]:
    """A required value of a row: a list of distinct strings."""
    values = value_of(row, key, place)
    if not isinstance(values, list) or not values:
        raise UsageError(f"{place}: {key!r} has to be a list of texts, not {values!r}.")
    texts = tuple(text_of({key: value}, key, place) for value in values)
    if len({text.strip() for text in texts}) != len(texts):
        raise UsageError(f"{place}: {key!r} holds the same text twice.")
    return texts


def group_of(row: Mapping[str, Any], place: str) -> str:
    """A row's group, a string or an integer, as a string."""
    group = row["group"]
    if isinstance(group, bool) or not isinstance(group, (str, int)):
        raise UsageError(f"{place}: 'group' has to be a text or a whole number, not {group!r}.")
    return unicode_text(str(group), "group", place)


def gold_of(row: Mapping[str, Any], choices: tuple[str, ...], place: str) -> int:
    """The index of the correct choice."""
    if len(choices) == 1:
        raise UsageError(f"{place}: 'choices' holds one text; there is nothing to choose.")
    answer = value_of(row, "answer", place)
    if answer in choices:
        return choices.index(answer)
    # A JSON true is an int in Python.
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    raise UsageError(
        f"{place}: 'answer' is {answer!r}, which is neither one of the choices "
        f"nor an index from 0 to {len(choices) - 1}."
    )
