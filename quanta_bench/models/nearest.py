"""Find a method's size on a model that comes nearest to a number of parameters.

Counting all sizes on a large model would take minutes. So sizes are ranked by an estimate, the
counts on one and two layers extrapolated to the model's depth, and only the best are counted in
full.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quanta_bench.errors import BenchError
from quanta_bench.models.meta import Count, count, layers_of, meta_model
from quanta_bench.plugins import build_method

FULL_COUNTS = 3
"""Number of settings, nearest by estimate, that are counted on the whole model."""


@dataclass(frozen=True)
class NearestSize:
    """Settings of a method whose count is nearest.

    Attributes:
        settings: the settings; those left out have the method's defaults.
        count: the parameters; ``None`` if no settings fit the model.
        ratio: ratio to the requested size.
        reason: why the first unsuitable settings do not fit the model.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    count: Count | None = None
    ratio: float | None = None
    reason: str = ""


def nearest_size(
    model: str, method: str, sizes: Sequence[Mapping[str, Any]], ratio: Callable[[Count], float]
) -> NearestSize:
    """The settings whose count comes nearest; a factor of two counts the same either way.

    Args:
        model: a name accepted by :func:`quanta_bench.models.meta.meta_model`.
        method: registered name of the method.
        sizes: its settings to choose from.
        ratio: gives the ratio of a count to the requested size.
    """
    depth = layers_of(model)
    estimates: list[tuple[float, int]] = []
    reason = ""
    for index, settings in enumerate(sizes):
        try:
            one, two = (count_on(model, method, settings, n) for n in (1, min(2, depth)))
        except BenchError as error:
            reason = reason or str(error)
            continue
        estimates.append((distance(ratio(_extrapolated(one, two, depth))), index))
    best = NearestSize(reason=reason)
    for _, index in sorted(estimates)[:FULL_COUNTS]:
        try:
            counted = count_on(model, method, sizes[index])
        except BenchError as error:
            best = best if best.count else NearestSize(reason=str(error))
            continue
        times = ratio(counted)
        if distance(times) < distance(best.ratio):
            best = NearestSize(dict(sizes[index]), counted, times)
    return best


def count_on(
    model: str, method: str, settings: Mapping[str, Any], layers: int | None = None
) -> Count:
    """The parameters of a method with plain settings on a model without weights.

    Args:
        model: a name accepted by :func:`quanta_bench.models.meta.meta_model`.
        method: registered name of the method.
        settings: its settings.
        layers: number of layers to count on; by default the model's own.

    Raises:
        BenchError: there is no such model or method, or the settings are refused or do not fit.
    """
    return count(meta_model(model, layers), build_method(method, settings))


def distance(ratio: float | None) -> float:
    """The distance of a ratio from 1 on a logarithmic scale; infinite for ``None``."""
    return abs(math.log(ratio)) if ratio else math.inf


def _extrapolated(one: Count, two: Count, depth: int) -> Count:
    """The counts on one and two layers, extrapolated linearly to a depth."""

    def at_depth(first: int, second: int) -> int:
        return max(0, first + (depth - 1) * (second - first))

    return Count(
        trainable=at_depth(one.trainable, two.trainable),
        base=at_depth(one.base, two.base),
        added=at_depth(one.added, two.added),
    )
