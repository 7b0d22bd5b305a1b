"""A user's own data, from a file: ``--task jsonl:PATH``.

The file is JSON lines or a JSON list. Each row has ``prompt`` and either

- ``choices`` and ``answer``, the right choice's text or its index from 0: a choice task; or
- ``target``, or ``answers`` of which each is accepted: the answer is generated and has to equal
  one of them, ignoring case, outer spaces and how Unicode composes its characters. One line.

Optional: ``split`` (train, validation or test; in all rows or in none) and ``group`` (rows that
belong together and never fall into different splits; where it is absent, null or blank, rows of
the same prompt). Without ``split``, groups fall by a stable hash: 60 % train, 20 % validation, 20 %
test.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from quanta_bench.task import (
    Example,
    Fractions,
    Prompt,
    Source,
    Split,
    Task,
    UsageError,
    UserRows,
    did_you_mean,
    split_by_group,
)
from tasks.places import parse_once

SHARES = Fractions(train=0.6, validation=0.2)


class JsonLines(Task):
    """Rows from a file that the user named. The whole file is checked when the task is made.

    Args:
        argument: path of the file.
    """

    name = "jsonl"
    title = "jsonl"
    grouped_by = "prompt, or the file's own groups"

    def __init__(self, argument: str | None = None) -> None:
        if not argument:
            raise UsageError("The task 'jsonl' needs a file; write 'jsonl:PATH'.")
        self._path = argument
        self.title = Path(argument).stem
        rows = read(argument)
        # A file asks for one kind of answer; the first row says which.
        self.kind = "choice" if "choices" in rows[0][1] else "generate"
        self.protocols = ("choice-text",) if self.kind == "choice" else ("generate",)
        for place, row in rows:
            self._example(row, place, 0)
            if (row.get("split") is None) != (rows[0][1].get("split") is None):
                raise UsageError(f"{place}: either all rows have the key 'split' or none has.")

    @property
    def reference(self) -> str:
        """The words that name this task on the command line."""
        return f"{self.name}:{self._path}"

    def examples(self, source: Source, split: Split) -> list[Example]:
        """All items of a split, in the order of their rows."""
        rows = source.rows(UserRows(self._path))
        items = parse_once(source, self.reference, rows, lambda: self._items(rows))
        if rows[0].get("split") is not None:
            found = [item for item in items if item.fields["split"] == split]
        else:
            found = split_by_group(items, lambda item: item.group, split, SHARES)
        if not found:
            raise UsageError(
                f"{self._path}: none of its {len(rows)} rows falls into the {split} split; "
                f"add rows, or give each row a key 'split'."
            )
        return found

    def _items(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        return [
            self._example(row, f"{self._path}, row {number + 1}", number)
            for number, row in enumerate(rows)
        ]

    def _example(self, row: Mapping[str, Any], place: str, number: int) -> Example:
        prompt = text_of(row, "prompt", place)
        group = group_of(row, place) or prompt
        fields: dict[str, Any] = {"prompt": prompt}
        if row.get("split") is not None:
            fields["split"] = row["split"]
            if row["split"] not in get_args(Split):
                raise UsageError(
                    f"{place}: 'split' is {row['split']!r}. "
                    f"{did_you_mean(str(row['split']), get_args(Split))}"
                )
        name = f"{self.name}/{number}"
        if self.kind == "choice":
            fields["choices"] = texts_of(row, "choices", place)
            return Example(name, group, fields, gold_of(row, fields["choices"], place))
        key = "answers" if "answers" in row else "target"
        answers = texts_of(row, key, place) if key == "answers" else (text_of(row, key, place),)
        if any("\n" in answer.strip() for answer in answers):
            raise UsageError(f"{place}: {key!r} holds a line break; answers are one line.")
        return Example(name, group, fields, references=answers)

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """The row's own words.

        " A" and "A" are different tokens, so the one space between prompt and answer always
        belongs to the answer, however the user wrote it. After a line break there is none.
        """
        if protocol not in self.protocols:
            raise UsageError(
                f"The task {self.reference!r} cannot be put as {protocol!r}. "
                f"{did_you_mean(protocol, self.protocols)}"
            )
        context = example.fields["prompt"].rstrip(" ")
        space = "" if not context or context.endswith("\n") else " "
        if example.gold is None:
            return Prompt(context, target=space + example.references[0].lstrip(" "))
        candidates = tuple(space + choice.lstrip(" ") for choice in example.fields["choices"])
        return Prompt(context, candidates, candidates[example.gold])


def read(path: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The rows of a file, each with the words that say where it stands.

    Raises:
        UsageError: there is no such file, it is empty, or it is not JSON.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    if text.lstrip().startswith("["):
        rows = [(f"{path}, row {n}", row) for n, row in enumerate(parse(text, path, 1), 1)]
    else:
        # Not splitlines(): it also splits at characters that JSON allows inside a text.
        lines = enumerate(text.split("\n"), 1)
        rows = [(f"{path}, line {n}", parse(line, path, n)) for n, line in lines if line.strip()]
    if not rows:
        raise UsageError(f"{path} holds no rows.")
    for place, row in rows:
        if not isinstance(row, dict):
            raise UsageError(f"{place}: not a JSON object but {str(row)[:40]!r}.")
    return rows


def parse(text: str, path: str, line: int) -> Any:
    """A JSON value that starts at a line of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {line + error.lineno - 1}: {error.msg}.") from error


def group_of(row: Mapping[str, Any], place: str) -> str | None:
    """The group that a row names; ``None`` where it names none, or only a blank one."""
    group = row.get("group")
    if group is None:
        return None
    if isinstance(group, bool) or not isinstance(group, str | int):
        raise UsageError(f"{place}: 'group' has to be a text or a whole number, not {group!r}.")
    return str(group).strip() or None


def value_of(row: Mapping[str, Any], key: str, place: str) -> Any:
    """A row's value."""
    if key not in row:
        raise UsageError(f"{place}: the key {key!r} is missing. The row has {', '.join(row)}.")
    return row[key]


def text_of(row: Mapping[str, Any], key: str, place: str) -> str:
    """A row's value, which has to be a text that is not blank."""
    value = value_of(row, key, place)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{place}: {key!r} has to be a text that is not blank, not {value!r}.")
    return value


def texts_of(row: Mapping[str, Any], key: str, place: str) -> tuple[str, ...]:
    """A row's value, which has to be a list of different texts."""
    values = value_of(row, key, place)
    if not isinstance(values, list) or not values:
        raise UsageError(f"{place}: {key!r} has to be a list of texts, not {values!r}.")
    texts = tuple(text_of({key: value}, key, place) for value in values)
    if len({text.strip() for text in texts}) != len(texts):
        raise UsageError(f"{place}: {key!r} holds the same text twice.")
    return texts


def gold_of(row: Mapping[str, Any], choices: tuple[str, ...], place: str) -> int:
    """The index of the right choice."""
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
