"""From the place of a task's rows to the items of a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from quanta_bench.task import Example, Location, Source, SourceError, Split, Task, split_by_group
from tasks.commonsense import Place


def read_split(
    task: Task,
    place: Place,
    source: Source,
    split: Split,
    example: Callable[[Mapping[str, Any], str], Example],
) -> list[Example]:
    """All items of a split, in the order of their rows.

    Args:
        task: the task.
        place: where its rows lie in the source.
        source: the source.
        split: the split.
        example: makes an item of a row and the item's id; raises a ``KeyError``, ``ValueError``,
            ``TypeError`` or ``AttributeError`` if the row has another form.

    Raises:
        SourceError: the rows cannot be read; names the row that has another form.
    """
    whole = {"validation": place.validation, "test": place.test}.get(split)
    if whole is not None:
        return read_rows(task, whole, source, split, example)
    pool = read_rows(task, place.pool, source, "pool", example)
    if place.disjoint and place.test is not None:
        held_out = {item.group for item in read_rows(task, place.test, source, "test", example)}
        pool = [item for item in pool if item.group not in held_out]
    return split_by_group(pool, lambda item: item.group, split, place.fractions)


def read_rows(
    task: Task,
    location: Location,
    source: Source,
    part: str,
    example: Callable[[Mapping[str, Any], str], Example],
) -> list[Example]:
    """An item of each row at a location, called by the task's name, the part's and a number.

    Raises:
        SourceError: as :func:`read_split`.
    """
    items = []
    for number, row in enumerate(source.rows(location)):
        try:
            items.append(example(row, f"{task.name}/{part}/{number}"))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise SourceError(
                f"Row {number} of {location} is not a {task.title} row: "
                f"{type(error).__name__}: {error}."
            ) from error
    return items
