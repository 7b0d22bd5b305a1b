"""Test items whose text stands in the training data, of whatever task.

A task's own splits keep related items apart. They cannot do so across tasks: a mixture may contain
another task's test questions. So texts are compared as words, in lower case and without
punctuation, by the share of a test text's five-word sequences that one training text holds
(containment, Broder 1997).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from quanta_bench.data.pools import Pools
from quanta_bench.errors import UsageError
from quanta_bench.plugins import find_protocol
from quanta_bench.spec import EvaluationSpec, TrainingSpec, canonical
from quanta_bench.task import Example, Split, Task
from quanta_bench.utils.remembered import remembered

Words = tuple[str, ...]

SHINGLE = 5
"""Words in a sequence."""
LONG = 8
"""Texts of fewer words, such as candidates, occur by chance. An item that has no longer text is
compared as a whole prompt."""
NEAR = 0.8
"""Share of a test text's sequences from which on a training text is nearly the same."""
MOST = 0.5
"""Share of an item's words that the texts found again must hold."""
MOST_SHARED = 0.02
"""Share of a task's test items that may be in the training data."""
FOLDER = "overlaps"
"""In the cache folder."""


@lru_cache(maxsize=1024)  # items share candidates, and a prompt shows fields
def words(text: str) -> Words:
    """Words and operators of a text: compatible forms, lower case, no punctuation."""
    return tuple(re.findall(r"\w+|[-+*/=<>^%]", unicodedata.normalize("NFKC", text).casefold()))


Items = tuple[Task, Sequence[Example]]
"""A task with some of its items."""


def overlapping(
    training: Iterable[Items], trained_protocol: str, scored: Mapping[str, Items], protocol: str
) -> dict[str, list[str]]:
    """The ids of the test items of which most text is in the training data, exactly or nearly.

    What counts as an item's text is what its prompt shows of its fields; for running text, the
    text. Answers do not: many items share them.

    Args:
        training: training tasks with their items.
        trained_protocol: the protocol that they are trained with.
        scored: tasks that are scored, with their items.
        protocol: the protocol that they are scored with.

    Returns:
        Sorted ids by the names of `scored`.
    """
    own = {
        (name, item.id): list(dict.fromkeys(_texts(task, item, protocol)))
        for name, (task, items) in scored.items()
        for item in items
    }
    index = _Index({text for texts in own.values() for text in texts})
    for trained, items in training:
        for item in items:
            index.add(_fields(item.fields))
            index.add_exact(_texts(trained, item, trained_protocol))
    found: dict[str, list[str]] = {name: [] for name in scored}
    for (name, item_id), texts in own.items():
        again = sum(len(text) for text in texts if text in index.again)
        if again and again >= MOST * sum(map(len, texts)):
            found[name].append(item_id)
    return {name: sorted(ids) for name, ids in found.items()}


TRAINED: tuple[Split, ...] = ("train", "validation")
"""The splits that a training reads."""


class Overlaps:
    """Overlaps of pools, each computed once; the cache keeps them for other processes."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._found: dict[tuple[object, ...], dict[str, list[str]]] = {}

    def of(self, training: TrainingSpec, evaluation: EvaluationSpec) -> dict[str, list[str]]:
        """By task, the ids of the items of the scored split that the training data hold.

        The training data are the pools for training and for validation, of which a run draws; if
        the validation items themselves are scored, those for training.

        Raises:
            SourceError: the data cannot be read.
        """
        key = (
            *(training.tasks, training.source, training.protocol),
            *(evaluation.tasks, evaluation.source, evaluation.split, evaluation.protocol),
        )
        if key not in self._found:
            self._found[key] = self._find(training, evaluation)
        return self._found[key]

    def _find(self, training: TrainingSpec, evaluation: EvaluationSpec) -> dict[str, list[str]]:
        """Compute it, or find it in the cache."""
        trained = [
            self._pools.get(task, training.source, split)
            for task in training.tasks
            for split in TRAINED
            if split != evaluation.split
        ]
        scored = {
            task: self._pools.get(task, evaluation.source, evaluation.split)
            for task in evaluation.tasks
        }
        parts = [
            Path(__file__).read_text("utf-8"),
            canonical([pool.task.reference for pool in trained]),
            canonical([pool.identity for pool in trained]),
            canonical({name: pool.identity for name, pool in scored.items()}),
            canonical([training.protocol, evaluation.protocol, evaluation.split]),
            canonical([len(pool.examples) for pool in (*trained, *scored.values())]),
        ]
        return remembered(
            FOLDER,
            tuple(parts),
            lambda: overlapping(
                [(pool.task, pool.examples) for pool in trained],
                training.protocol,
                {name: (pool.task, pool.examples) for name, pool in scored.items()},
                evaluation.protocol,
            ),
        )

    def check(self, training: TrainingSpec, evaluation: EvaluationSpec) -> None:
        """Refuse to score items of which too many are in the training data.

        Raises:
            UsageError: more than `MOST_SHARED` of a task's items are.
            SourceError: the data cannot be read.
        """
        for name, ids in self.of(training, evaluation).items():
            pool = self._pools.get(name, evaluation.source, evaluation.split)
            count = len(pool.examples)
            if len(ids) > MOST_SHARED * count:
                raise UsageError(
                    f"{len(ids):,} of the {count:,} {evaluation.split} items of {name} are in the "
                    f"training data ({', '.join(training.tasks)}); at most {MOST_SHARED:.0%} may "
                    f"be. Train on other data, leave {name} out, or score it all the same with "
                    "--allow-overlap; the table will say so."
                )


class _Index:
    """Test texts, and which of them training texts hold.

    A text that holds k of n sequences holds at least one of any n - k + 1 of them. So a test text
    is looked up by that many alone, those that the fewest test texts have, and compared only with
    texts that hold one of these (prefix filtering, Chaudhuri, Ganti and Kaushik 2006). Else all
    items that begin with the same instruction would be compared with each other.

    Attributes:
        again: the test texts found so far.
    """

    def __init__(self, texts: Iterable[Words]) -> None:
        self._exact = set(texts)
        long = [text for text in self._exact if len(text) >= LONG]
        common = Counter(shingle for text in long for shingle in _shingles(text))
        self._keys: dict[Words, tuple[Words, ...]] = {}
        self._by_key: dict[Words, set[Words]] = defaultdict(set)
        self.again: set[Words] = set()
        for text in long:
            rare = sorted(_shingles(text), key=common.__getitem__)
            self._keys[text] = tuple(rare[: len(rare) - math.ceil(NEAR * len(rare)) + 1])
            for key in self._keys[text]:
                self._by_key[key].add(text)

    def add(self, texts: Iterable[str]) -> None:
        """Look for test texts in the long ones among an item's texts."""
        for split in map(words, texts):
            if len(split) < LONG:
                continue
            held = _shingles(split)
            near = [self._by_key[key] for key in held & self._by_key.keys()]
            for text in set().union(*near):
                wanted = _shingles(text)
                if len(wanted & held) >= NEAR * len(wanted):
                    self._find(text)

    def add_exact(self, texts: Iterable[Words]) -> None:
        """Look for the very texts, which may be short."""
        self.again |= self._exact.intersection(texts)

    def _find(self, text: Words) -> None:
        """Note a text, which need not be compared again."""
        self.again.add(text)
        for key in self._keys[text]:
            self._by_key[key].discard(text)


@lru_cache(maxsize=256)
def _shingles(text: Words) -> frozenset[Words]:
    return frozenset(text[start : start + SHINGLE] for start in range(len(text) - SHINGLE + 1))


def _texts(task: Task, item: Example, protocol: str) -> list[Words]:
    """The long texts among an item's fields that its prompt shows; the whole prompt without any."""
    long = [text for text in map(words, _fields(item.fields)) if len(text) >= LONG]
    if task.kind == "perplexity":
        return long
    if find_protocol(protocol).prompts:
        context = words(task.prompt(item, protocol).context)
    else:
        context = words("\n".join(task.texts(item)))
    sequences = _shingles(context)
    # Templates may remove markers from a field, so it need not be shown word for word.
    shown = [text for text in long if len(_shingles(text) & sequences) >= MOST * len(text)]
    return shown or [context]


def _fields(value: Any) -> Iterator[str]:
    """Every text among fields, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _fields(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _fields(part)
