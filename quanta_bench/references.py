"""How a task is named where the path of a user's own file has no place: tables, files, tags.

A reference, ``name`` or ``name:argument``, is what the command line and suites say. It may be long
and holds for one machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import PurePath, PureWindowsPath

from quanta_bench.errors import BenchError
from quanta_bench.plugins import TASKS
from quanta_bench.utils.portable import portable

DIGEST = 6
"""Hexadecimal digits that tell two equal names apart."""


def reads_own_file(reference: str) -> bool:
    """Whether a task reads a file of the user's own, which is its argument."""
    name, colon, _ = reference.partition(":")
    try:
        return bool(colon) and name in TASKS and not TASKS.get(name).reads_source
    except BenchError:
        return False


def portable_task(reference: str) -> str:
    """A task without the folder of the user's own file that it reads."""
    name, _, argument = reference.partition(":")
    return f"{name}:{last_part(argument)}" if reads_own_file(reference) else reference


@lru_cache(maxsize=4096)  # the runs of a table name the same few places
def last_part(path: str) -> str:
    """The last part of a path of any system; empty for the working directory itself."""
    return PurePath(*PureWindowsPath(path).parts[-1:]).name


def short_names(references: Iterable[str]) -> dict[str, str]:
    """A name for each task: its own, or that of its file without folder and ending.

    A file's name that another of the tasks has, or a registered task, gets a digest of the
    reference.
    """
    names = {reference: _short(reference) for reference in references}
    taken = {name for name in TASKS.names() if name not in names}
    return apart(names, taken)


def apart(names: Mapping[str, str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Names of which no two are equal as a component of a path: equal ones get a digest.

    Args:
        names: names or titles by reference. That of a task without an argument stays as it is.
        taken: names that others have.
    """
    counts = Counter(map(portable, [*names.values(), *taken]))
    return {
        key: f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:DIGEST]}"
        if counts[portable(name)] > 1 and ":" in key
        else name
        for key, name in names.items()
    }


def source_of(tasks: Iterable[str], source: str) -> str:
    """Where the data of tasks come from, in words: files of the user's own have no source."""
    named = [*tasks]
    return "your own files" if named and all(map(reads_own_file, named)) else source


def _short(reference: str) -> str:
    name, colon, argument = reference.partition(":")
    if not colon:
        return reference
    if reads_own_file(reference):
        return PurePath(last_part(argument)).stem
    return f"{name}:{last_part(argument)}"
