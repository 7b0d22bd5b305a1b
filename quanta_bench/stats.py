"""Means, spreads and standard errors, each saying what it is an error of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def clustered_standard_error(values: Sequence[float], groups: Sequence[str]) -> float:
    """Standard error of a mean over items of which some are related.

    Items of one group (questions on one passage, twins with opposite answers) are not independent
    draws. The estimate sums residuals within groups before squaring; with every item in a group of
    its own it is the usual one, up to the factor sqrt(n / (n - 1)) that both have here.

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


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    return float(np.mean(values)) if len(values) else math.nan


def deviation(values: Sequence[float]) -> float:
    """Standard deviation over seeds, with n - 1; NaN for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def error_of_average(errors: Sequence[float]) -> float:
    """Standard error of the average of independent tasks, from each task's own."""
    return math.sqrt(sum(error**2 for error in errors)) / len(errors) if errors else math.nan
