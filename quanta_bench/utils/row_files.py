"""Rows of a user's file: JSON lines, a JSON list, CSV, TSV or Parquet.

The standard library reads CSV because it reports the line number of each row; pandas would infer
types and turn "007" into 7.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quanta_bench.errors import UsageError
from quanta_bench.utils.fingerprint import SETTLED_SECONDS
from quanta_bench.utils.folders import user_path
from quanta_bench.utils.json_text import parse_json

Rows = list[tuple[str, dict[str, Any]]]
"""Rows, each with its place in the file, such as ``my.csv, line 3``."""

TEXT_TABLES = {".csv": ",", ".tsv": "\t"}
"""Endings of tables whose cells are text, and what separates these."""

OTHER_TABLES = (".xlsx", ".xls", ".ods", ".arrow", ".feather", ".orc", ".pkl", ".gz", ".zip")
"""Endings that cannot be JSON, refused before they are read as text."""

LONGEST_CELL = 1 << 24
"""Characters of a cell of CSV; Python's own bound of 131,072 is too low for a long text."""

TAKEN = "JSON lines (.jsonl), a JSON list (.json), CSV (.csv), TSV (.tsv) or Parquet (.parquet)"


def read_rows(path: str) -> Rows:
    """The rows of a file, of which there is at least one. The ending says what it is.

    A file is read once a process, and again when it has changed: callers share the rows and must
    not change them.

    Raises:
        UsageError: there is no such file, it is empty, or it is not what its ending says.
    """
    file = user_path(path)
    before = _stamp(file)
    known, rows = _kept.get(path, (None, []))
    if before is None or known != before:
        rows = _read(file, path)
        if before is not None and before == _stamp(file):
            _kept[path] = before, rows
    return list(rows)


_kept: dict[str, tuple[tuple[int, ...], Rows]] = {}
"""The rows of files by their names, with what a changed file is noticed by."""


def _stamp(file: Path) -> tuple[int, ...] | None:
    """By what a changed file is noticed; ``None`` where that is not certain."""
    try:
        stat = file.stat()
    except OSError:
        return None
    changed = max(stat.st_mtime, stat.st_ctime)
    if not file.is_file() or time.time() - changed < SETTLED_SECONDS:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _read(file: Path, path: str) -> Rows:
    ending = file.suffix.lower()
    try:
        # Each reader needs the file from its start, and a device may have no end.
        if file.exists() and not file.is_file():
            raise UsageError(f"{path} is not a file; a pipe or a device cannot be read twice.")
        if ending in TEXT_TABLES:
            rows = list(_text_table(file, path, TEXT_TABLES[ending]))
        elif ending == ".parquet":
            rows = list(_parquet(file, path))
        elif ending in OTHER_TABLES:
            raise UsageError(f"{path} cannot be read: a file of rows is {TAKEN}.")
        else:
            rows = list(_json(file, path))
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not in UTF-8 (byte {error.start} is {error.object[error.start]:#04x}). "
            "Save it as UTF-8; a spreadsheet calls that 'CSV UTF-8'."
        ) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    if not rows:
        raise UsageError(f"{path} holds no rows.")
    return rows


def _json(file: Path, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    text = file.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        values = [(f"{path}, row {n}", row) for n, row in enumerate(_parse(text, path, 1), 1)]
    else:
        # Not splitlines(): it also splits at characters that JSON allows inside a text.
        lines = enumerate(text.split("\n"), 1)
        values = [(f"{path}, line {n}", _parse(line, path, n)) for n, line in lines if line.strip()]
    for place, row in values:
        if not isinstance(row, dict):
            raise UsageError(f"{place}: not a JSON object but {str(row)[:40]!r}.")
        yield place, row


def _parse(text: str, path: str, line: int) -> Any:
    """A JSON value that starts at a line of the file."""
    try:
        return parse_json(text, unique_keys=True)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path}, line {line + error.lineno - 1}: {error.msg}. A file of rows is {TAKEN}."
        ) from error


def _text_table(file: Path, path: str, separator: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        csv.field_size_limit(LONGEST_CELL)
        reader = csv.reader(stream, delimiter=separator, strict=True)
        try:
            names = [name.strip() for name in next(reader, [])]
            if len(set(names)) != len(names) or "" in names:
                raise UsageError(
                    f"{path}, line 1: it names the columns, each once, not {', '.join(names)!r}."
                )
            start = reader.line_num + 1
            for cells in reader:
                place = f"{path}, line {start}"
                start = reader.line_num + 1
                if not cells:
                    continue
                if len(cells) != len(names):
                    raise UsageError(
                        f"{place}: {len(cells)} cells instead of {len(names)} ({', '.join(names)})."
                    )
                yield place, dict(zip(names, cells, strict=True))
        except csv.Error as error:
            reason = str(error).replace("unexpected end of data", "a quote is not closed")
            raise UsageError(f"{path}, line {reader.line_num}: {reason}.") from error


def _parquet(file: Path, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow.parquet  # type: ignore[import-untyped]  # comes with datasets

    with file.open("rb") as stream:
        try:
            rows = pyarrow.parquet.read_table(stream).to_pylist()
        except (pyarrow.ArrowException, ValueError) as error:
            raise UsageError(f"{path} is not Parquet: {error}.") from error
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", row
