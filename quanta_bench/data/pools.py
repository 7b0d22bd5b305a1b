"""The items of tasks by source and split: read once per process, sampled by seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from quanta_bench.errors import BenchError
from quanta_bench.plugins import find_task
from quanta_bench.sources.rows import DataSource, KeptRows, parse_source
from quanta_bench.splits import SPLIT_VERSION
from quanta_bench.task import Example, Split, Task
from quanta_bench.utils.quiet import without_collection


@dataclass(frozen=True)
class Pool:
    """The items of one task, source and split.

    Attributes:
        task: the task.
        examples: all items, in file order.
        content: fingerprint of each location that was read.
    """

    task: Task
    examples: tuple[Example, ...]
    content: dict[str, str]

    @property
    def identity(self) -> dict[str, Any]:
        """The part of this pool that enters a run's hash."""
        return {
            "content": self.content,
            "template": self.task.template_version,
            "splits": SPLIT_VERSION,
        }


class Pools:
    """Reads pools and keeps them, and the rows behind them, for the life of the process."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, str, Split], Pool] = {}
        self._sources: dict[str, tuple[DataSource, KeptRows]] = {}
        # All runs of a seed have the same items, and ranking all of a large pool takes a while.
        self._draw = lru_cache(maxsize=64)(self._drawn)

    def get(self, reference: str, source: str, split: Split) -> Pool:
        """All items of a task's split.

        Raises:
            SourceError: the source cannot serve them.
            BenchError: the split is empty, or two items share an id.
        """
        key = (reference, source, split)
        if key not in self._pools:
            task = find_task(reference)
            if source not in self._sources:
                data = parse_source(source)
                self._sources[source] = data, KeptRows(data)
            data, rows = self._sources[source]
            rows.start_recording()
            # There are many items and none is part of a cycle.
            with without_collection():
                examples = tuple(task.examples(rows, split))
            if not examples:
                raise BenchError(f"{reference} has no {split} items in the source {source!r}.")
            if len({example.id for example in examples}) != len(examples):
                raise BenchError(f"{reference} gives two {split} items the same id.")
            self._pools[key] = Pool(task, examples, data.content(rows.read))
        return self._pools[key]

    def sample(
        self, references: Sequence[str], source: str, split: Split, count: int | None, seed: int
    ) -> list[tuple[Task, list[Example]]]:
        """Each task with a sample of its split (:func:`draw`); raises what :meth:`get` raises."""
        pools = [self.get(reference, source, split) for reference in references]
        drawn = (self._draw(reference, source, split, count, seed) for reference in references)
        return [(pool.task, list(items)) for pool, items in zip(pools, drawn, strict=True)]

    def _drawn(
        self, reference: str, source: str, split: Split, count: int | None, seed: int
    ) -> Sequence[Example]:
        return draw(self.get(reference, source, split).examples, count, seed)


def draw(examples: Sequence[Example], count: int | None, seed: int) -> list[Example]:
    """A sample that depends only on the seed and the items' ids.

    Items are ranked by a hash, so a larger sample contains every smaller one with the same seed,
    and an item added to the pool displaces at most one other.
    """
    ranked = sorted(
        examples, key=lambda item: hashlib.sha256(f"{seed}\x1f{item.id}".encode()).digest()
    )
    return ranked[:count]
