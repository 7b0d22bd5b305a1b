"""Where a task's rows are stored, and how they become the items of a split."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from quanta_bench.task import (
    Example,
    Fractions,
    HubRows,
    JsonRows,
    Location,
    Source,
    SourceError,
    Split,
    Task,
    split_by_group,
)

CUT = Fractions(train=0.5, validation=0.1)
"""For rows that supply all three splits: at least 300 test items for each embedded task."""

CARVED = Fractions(train=0.9, validation=0.1)
"""For a published training set whose test split is stored separately."""


Rows = list[dict[str, Any]]

_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Place:
    """Where one kind of source keeps a task's rows.

    Attributes:
        pool: rows to divide, by group, among the splits that have no location of their own.
        validation: location of a published validation split.
        test: location of a published test split.
        fractions: how the pool is divided.
        disjoint: drop pool rows whose group is also in the test split. Off for published splits
            whose results are compared with other papers'.
    """

    pool: Location
    validation: Location | None = None
    test: Location | None = None
    fractions: Fractions = CUT
    disjoint: bool = False


@dataclass(frozen=True)
class Places:
    """Where a task's rows are stored in each kind of source."""

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


def letters_of(text: str) -> str:
    """The letters and digits of a text."""
    # The same characters as str.isalnum, which is ten times slower one by one.
    return _NOT_ALPHANUMERIC.sub("", text)


def twin_key(text: str) -> str:
    """A short hash of a text that ignores case, spaces and punctuation.

    Data sets contain copies that differ in nothing else ("Plastic wrap", "plastic wrap").
    """
    letters = letters_of(text.casefold()) or text
    return hashlib.sha256(letters.encode()).hexdigest()[:16]


def read_split(
    task: Task,
    place: Place,
    source: Source,
    split: Split,
    example: Callable[[Mapping[str, Any], str], Example],
) -> list[Example]:
    """All items of a split, in row order.

    Args:
        task: the task.
        place: where the source stores its rows.
        source: the source.
        split: the split.
        example: makes an item from a row and an id; raises ``KeyError``, ``ValueError``,
            ``TypeError`` or ``AttributeError`` if the row has a different format.

    Raises:
        MissingDataError: the source has no such rows.
        SourceError: the rows cannot be read; the message names the row with a different format.
    """
    location = {"validation": place.validation, "test": place.test}.get(split)
    if location is not None:
        return read_rows(task, location, source, split, example)
    pool = read_rows(task, place.pool, source, "pool", example)
    if place.disjoint and place.test is not None:
        held_out = {item.group for item in read_rows(task, place.test, source, "test", example)}
        pool = [item for item in pool if item.group not in held_out]
    return split_by_group(pool, lambda item: item.group, split, place.fractions)


_parsed: WeakKeyDictionary[Source, dict[Hashable, tuple[Rows, list[Example]]]] = WeakKeyDictionary()
"""Items parsed from a source's cached rows, shared by all splits of the same rows."""


def parse_once(
    source: Source, key: Hashable, rows: Rows, parse: Callable[[], list[Example]]
) -> list[Example]:
    """The items of rows, parsed once while a source returns the same list of rows.

    Args:
        source: where the rows come from.
        key: identifies the task and the rows.
        rows: the rows.
        parse: parses the rows.
    """
    cache = _parsed.setdefault(source, {})
    if key not in cache or cache[key][0] is not rows:
        cache[key] = rows, parse()
    return cache[key][1]


def read_rows(
    task: Task,
    location: Location,
    source: Source,
    part: str,
    example: Callable[[Mapping[str, Any], str], Example],
) -> list[Example]:
    """The items of the rows at a location; ids are ``TASK/PART/NUMBER``.

    Raises:
        MissingDataError, SourceError: as :func:`read_split`.
    """
    rows = source.rows(location)

    def parse() -> list[Example]:
        items = []
        for number, row in enumerate(rows):
            try:
                item = example(row, f"{task.name}/{part}/{number}")
                _refuse_null(item.fields)
                items.append(item)
            except (LookupError, ValueError, TypeError, AttributeError) as error:
                raise SourceError(
                    f"Row {number + 1} of {_name(location)} is not a {task.title} row: "
                    f"{type(error).__name__}: {error}."
                ) from error
        return items

    return parse_once(source, (task.reference, location, part), rows, parse)


def _refuse_null(fields: Mapping[str, Any]) -> None:
    """Refuse a field without a value: in a prompt it would be the word "None"."""
    for name, value in fields.items():
        if value is None or (isinstance(value, (list, tuple)) and None in value):
            raise ValueError(f"{name!r} is null")


def text_of(row: Any, key: Any) -> str:
    """A text of a row, or of a list in it.

    Raises:
        KeyError, IndexError: the row lacks it.
        TypeError: it is null or something else than text.
    """
    value = row[key]
    if not isinstance(value, str):
        raise TypeError(f"{key!r} is {'null' if value is None else repr(value)[:40]} and no text")
    return value


def _name(location: Location) -> str:
    """A file's path, or a data set's name, configuration and split."""
    if isinstance(location, HubRows):
        parts = (location.name, location.config, location.split)
        return "/".join(part for part in parts if part)
    return location.path
