"""The predictions of a run, one JSON line an item: written plain, read plain or gzipped."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import from_json

from quanta_bench.errors import BenchError
from quanta_bench.results.integrity import DamagedError
from quanta_bench.results.records import Result

FILE = "predictions.jsonl"
COMPRESSED = f"{FILE}.gz"
"""The form in which predictions are committed; its text has the same hash."""

_NO_SCORES = {"id", "task", "group", "prediction", "gold"}
_OF_TEXTS = ("log_likelihoods", "tokens", "words")


@dataclass(frozen=True)
class ItemScores:
    """The scores and answers of a task's items in one run.

    Attributes:
        ids: the items, sorted.
        groups: each item's group of related items.
        predictions: each item's chosen candidate or parsed answer; ``None`` where there is none.
        gold: what was right.
        scores: by metric, float64 of shape (items,); only metrics that every item has.
        texts: of texts that were predicted, ``log_likelihoods`` (nats), ``tokens`` and, where they
            were counted, ``words``: float64 of shape (items,); empty for choices and answers.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    predictions: tuple[Any, ...]
    gold: tuple[Any, ...]
    scores: Mapping[str, np.ndarray]
    texts: Mapping[str, np.ndarray] = field(default_factory=dict)


def write(folder: Path, lines: Iterable[Mapping[str, Any]]) -> str:
    """Write a run's predictions; returns the sha256 of their text.

    Raises:
        BenchError: a number is not finite, which JSON does not have.
    """
    digest = hashlib.sha256()
    with (folder / FILE).open("wb") as stream:
        for line in lines:
            try:
                text = json.dumps(line, ensure_ascii=False, allow_nan=False)
            except ValueError:
                raise BenchError(
                    f"Item {line.get('id')} of {line.get('task')} has a score or a likelihood that "
                    "is not a finite number, so the run is not stored."
                ) from None
            content = f"{text}\n".encode()
            digest.update(content)
            stream.write(content)
    return digest.hexdigest()


def content(folder: Path) -> bytes | None:
    """The text of a run's predictions; ``None`` where they are not stored.

    Raises:
        DamagedError: the file cannot be decompressed.
    """
    plain, compressed = folder / FILE, folder / COMPRESSED
    if plain.exists():
        return plain.read_bytes()
    if not compressed.exists():
        return None
    try:
        return gzip.decompress(compressed.read_bytes())
    except (OSError, EOFError) as error:
        raise DamagedError(compressed, "predictions", f"not gzip ({error})") from None


def parse(text: bytes, folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of predictions.

    Raises:
        DamagedError: a line is not a JSON object, or holds a number that JSON does not have.
    """
    # Split at line feeds alone: splitlines would also split at separators inside JSON strings.
    for number, line in enumerate(text.removesuffix(b"\n").split(b"\n") if text else (), 1):
        try:
            # A third of the time of json's parser, to the same numbers.
            item = from_json(line, allow_inf_nan=False)
            if not isinstance(item, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise DamagedError(folder / FILE, "predictions", f"line {number}: {error}") from None
        yield item


def check(text: bytes, folder: Path, result: Result) -> None:
    """Check the text of predictions against their result.

    Raises:
        DamagedError: the hash differs.
    """
    stored = result.predictions_sha256
    if stored and hashlib.sha256(text).hexdigest() != stored:
        raise DamagedError(folder / FILE, "predictions", "changed after it was written")


def item_scores(text: bytes, folder: Path, result: Result) -> dict[str, ItemScores]:
    """The scores of every item, by task.

    Raises:
        DamagedError: a line cannot be read, or there are not as many as items were scored.
    """
    lines: dict[str, list[dict[str, Any]]] = {task: [] for task in result.tasks}
    try:
        for item in parse(text, folder):
            _ = item["id"], item["group"]
            lines[item["task"]].append(item)
    except KeyError as error:
        raise DamagedError(folder / FILE, "predictions", f"a line lacks {error}") from None
    for task, items in lines.items():
        if len(items) != result.tasks[task].items:
            raise DamagedError(
                folder / FILE,
                "predictions",
                f"{len(items)} of {result.tasks[task].items} items of {task}",
            )
    return {task: _columns(items) for task, items in lines.items()}


def _columns(items: list[dict[str, Any]]) -> ItemScores:
    items.sort(key=lambda item: str(item["id"]))
    names = set(items[0]) - _NO_SCORES if items else set()
    scores = {}
    for name in names:
        values = [item.get(name) for item in items]
        if all(type(value) in (int, float) for value in values):
            scores[name] = np.array(values, dtype=float)
    texts = {}
    for name in _OF_TEXTS:
        # Candidates have several, so that the first item tells.
        if items and _single(items[0].get(name)) is None:
            continue
        found = [_single(item.get(name)) for item in items]
        if all(value is not None for value in found):
            texts[name] = np.array(found, dtype=float)
    # Runs of a table score the same items: each name is kept once.
    return ItemScores(
        tuple(sys.intern(str(item["id"])) for item in items),
        tuple(sys.intern(str(item["group"])) for item in items),
        tuple(item.get("prediction") for item in items),
        tuple(item.get("gold") for item in items),
        scores,
        texts,
    )


def _single(value: Any) -> float | None:
    """A number, or that of a list of one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return float(value) if type(value) in (int, float) else None
