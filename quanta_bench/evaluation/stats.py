"""Means, spreads over seeds, and standard errors over items."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

MOST_LEFT_OUT = 400
"""How often the jackknife computes a metric again, at most."""


def clustered_standard_error(values: Sequence[float], groups: Sequence[str]) -> float:
    """Standard error of a mean over items of which some are related.

    Items of one group (questions on one passage, twins with opposite answers) are not independent.
    The estimate sums residuals within groups before squaring; with every item in a group of its own
    it is the usual one, up to the factor sqrt(n / (n - 1)) that both have here.

    Args:
        values: per-item scores.
        groups: per-item group names.

    Returns:
        The standard error, in the values' unit; NaN with fewer than two groups.
    """
    array = np.asarray(values, dtype=float)
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    count = len(names)
    if count < 2:
        return math.nan
    sums = np.bincount(index, weights=array - array.mean())
    return float(math.sqrt((sums**2).sum() * count / (count - 1)) / len(array))


def jackknife_standard_error(
    metric: Callable[[Sequence[T]], float], items: Sequence[T], groups: Sequence[str]
) -> float:
    """Standard error of a metric of all items together, such as F1 or a correlation.

    Each group of related items is left out once (the delete-a-group jackknife); of more than
    ``MOST_LEFT_OUT`` groups, several at a time. Of a mean over items that are all groups of their
    own, this is :func:`clustered_standard_error`.

    Args:
        metric: computes the metric of some of the items.
        items: the items.
        groups: per-item group names.

    Returns:
        The standard error, in the metric's unit; NaN with fewer than two groups, and where the
        metric is not finite without one of them.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        return math.nan
    block = {name: number % MOST_LEFT_OUT for number, name in enumerate(names)}
    places = [block[group] for group in groups]
    estimates = [
        metric([item for item, place in zip(items, places, strict=True) if place != number])
        for number in range(min(len(names), MOST_LEFT_OUT))
    ]
    if not all(map(math.isfinite, estimates)):
        return math.nan
    return float(math.sqrt((len(estimates) - 1) * np.var(estimates)))


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    return float(np.mean(values)) if len(values) else math.nan


def deviation(values: Sequence[float]) -> float:
    """Standard deviation over seeds, with n - 1; NaN for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def error_of_average(errors: Sequence[float], of: Sequence[Hashable] = ()) -> float:
    """Standard error of an average, from the errors of its parts.

    Args:
        errors: a standard error each.
        of: what the items of each part are; by default all are independent. Errors of the same
            items add up, which is the most that they can do.
    """
    if not errors:
        return math.nan
    sums: dict[Hashable, float] = {}
    for error, items in zip(errors, of or range(len(errors)), strict=True):
        sums[items] = sums.get(items, 0.0) + error
    return math.hypot(*sums.values()) / len(errors)
