"""What a metric's name says of it: its range, its direction and its unit."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A metric, as other tools describe one.

    Attributes:
        low: the least possible value.
        high: the greatest; infinity where there is none.
        lower_is_better: whether a lower value is better.
        unit: of its values.
        family: metrics of a family are the same kind of quantity.
    """

    low: float
    high: float
    lower_is_better: bool
    unit: str
    family: str


CORRELATIONS = {"matthews", "pearson", "spearman"}
PERPLEXITIES = {"perplexity", "word_perplexity"}


def measure(metric: str) -> Measure:
    """A metric by its name in a record; what no other name says is a fraction (`TaskResult`)."""
    name = base_name(metric)
    if name in PERPLEXITIES:
        return Measure(1.0, math.inf, True, name, "perplexity")
    if name == "nats_per_token":
        return Measure(0.0, math.inf, True, name, "compression_rate")
    if name in CORRELATIONS:
        return Measure(-1.0, 1.0, False, "correlation", "correlation")
    return Measure(0.0, 1.0, False, "proportion", "f1" if "f1" in name else "accuracy")


def base_name(metric: str) -> str:
    """The metric without the normaliser that it was taken under."""
    return metric.partition("/")[0]


def normaliser(metric: str) -> str:
    """The normaliser that a metric was taken under, where its name has one; else empty."""
    return metric.partition("/")[2]
