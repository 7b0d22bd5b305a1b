"""A row's score in a column, taken apart: by training seed and by group of related test items.

Everything here is linear: a difference of two rows and a mean over columns are scores again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_BLOCKS = 100
"""How often the jackknife computes a metric again, at most."""


@dataclass(frozen=True)
class Scores:
    """Scores of one row, by seed, with what each group of items contributes to their error.

    Attributes:
        means: float64 of shape (seeds,), the score of each seed.
        parts: float64 of shape (seeds, groups): each group's contribution to the deviation of that
            seed's score from its expectation; their squares sum to its variance over items.
        totals: float64 of shape (seeds, groups): what each group adds to a seed's score.
        groups: names of the groups, sorted within a stratum; shared by rows that can be compared.
        strata: int64 of shape (groups,): the column that a group belongs to.
    """

    means: Floats
    parts: Floats
    totals: Floats
    groups: tuple[str, ...]
    strata: NDArray[np.int64]

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.means)

    def repeated(self, seeds: int) -> Scores:
        """The same score for each of so many seeds, for a row that does not train."""
        return self._with(lambda values: np.repeat(values, seeds, axis=0))

    def pooled(self) -> Scores:
        """All seeds as one, for a row that does not train: seeds differ by their items alone."""
        return self._with(lambda values: values.mean(axis=0, keepdims=True))

    def minus(self, other: Scores) -> Scores:
        """The difference of two rows, seed by seed and item by item.

        Raises:
            ValueError: they were not scored on the same groups with the same number of seeds.
        """
        if self.groups != other.groups or self.parts.shape != other.parts.shape:
            raise ValueError("the rows have other seeds or other items")
        return replace(
            self,
            means=self.means - other.means,
            parts=self.parts - other.parts,
            totals=self.totals - other.totals,
        )

    def times(self, factor: float) -> Scores:
        """The scores in another unit."""
        return self._with(lambda values: values * factor)

    def _with(self, change: Callable[[Floats], Floats]) -> Scores:
        return replace(
            self, means=change(self.means), parts=change(self.parts), totals=change(self.totals)
        )


def of_items(values: Sequence[Sequence[float]], groups: Sequence[Sequence[str]]) -> Scores:
    """The mean over items, by seed.

    Args:
        values: a seed's scores, one an item.
        groups: a seed's groups of related items, one an item.
    """
    names = sorted({name for one in groups for name in one})
    place = {name: number for number, name in enumerate(names)}
    means, parts, totals = [], [], []
    for scores, of_items in zip(values, groups, strict=True):
        array = np.asarray(scores, dtype=float)
        index = np.array([place[name] for name in of_items], dtype=np.int64)
        count = len(np.unique(index))
        sums = np.bincount(index, weights=array - array.mean(), minlength=len(names))
        means.append(array.mean())
        parts.append(sums * _correction(count) / len(array))
        totals.append(np.bincount(index, weights=array, minlength=len(names)) / len(array))
    return _column(means, parts, totals, names)


def of_metric(
    metric: Callable[[Sequence[Any]], float],
    items: Sequence[Sequence[Any]],
    groups: Sequence[Sequence[str]],
) -> Scores:
    """A metric of all items together, such as F1, by seed: the delete-a-group jackknife.

    Args:
        metric: computes the metric of some of the items.
        items: a seed's items.
        groups: a seed's groups of related items, one an item. Of more than `MOST_BLOCKS`, several
            are left out at a time.
    """
    names = sorted({name for one in groups for name in one})
    block = {name: f"{number % MOST_BLOCKS:03d}" for number, name in enumerate(names)}
    blocks = sorted(set(block.values()))
    means, parts, totals = [], [], []
    for of_seed, of_items in zip(items, groups, strict=True):
        places = [block[name] for name in of_items]
        present = set(places)
        without = {
            one: metric([i for i, p in zip(of_seed, places, strict=True) if p != one])
            for one in present
            if len(present) > 1
        }
        count = len(without)
        middle = float(np.mean(list(without.values()))) if without else np.nan
        gaps = np.array([middle - without[b] if b in without else 0.0 for b in blocks])
        mean = metric(of_seed)
        means.append(mean)
        parts.append(gaps * np.sqrt((count - 1) / max(count, 1)) if count else gaps * np.nan)
        shares = np.array([b in without for b in blocks]) / max(count, 1)
        totals.append(gaps * (count - 1) / max(count, 1) + mean * shares)
    return _column(means, parts, totals, blocks)


def average(columns: Sequence[Scores], of: Sequence[Hashable]) -> Scores:
    """The mean over columns of one row.

    Args:
        columns: at least one, with the same seeds.
        of: what each column's items are. Columns of the same, such as two metrics of a task, have
            the same items, so that their errors add up; others are independent.

    Raises:
        ValueError: they have different numbers of seeds, there are none, or columns of the same
            items have other groups.
    """
    if not columns or len({column.seeds for column in columns}) > 1:
        raise ValueError("an average takes columns with the same seeds")
    by_items: dict[Hashable, list[Scores]] = {}
    for column, items in zip(columns, of, strict=True):
        by_items.setdefault(items, []).append(column)
    strata = list(by_items.values())
    if any(column.groups != alike[0].groups for alike in strata for column in alike):
        raise ValueError("columns of the same items have other groups")
    parts = [np.sum([column.parts for column in alike], axis=0) for alike in strata]
    totals = [np.sum([column.totals for column in alike], axis=0) for alike in strata]
    return Scores(
        np.mean([column.means for column in columns], axis=0),
        np.concatenate(parts, axis=1) / len(columns),
        np.concatenate(totals, axis=1) / len(columns),
        tuple(f"{n}/{name}" for n, alike in enumerate(strata) for name in alike[0].groups),
        np.concatenate([np.full(len(a[0].groups), n) for n, a in enumerate(strata)]),
    )


def _column(
    means: Sequence[float], parts: Sequence[Floats], totals: Sequence[Floats], names: Sequence[str]
) -> Scores:
    return Scores(
        np.array(means, dtype=float),
        np.array(parts),
        np.array(totals),
        tuple(names),
        np.zeros(len(names), dtype=np.int64),
    )


def _correction(groups: int) -> float:
    # One group says nothing about the variance between groups.
    return float(np.sqrt(groups / (groups - 1))) if groups > 1 else float("nan")
