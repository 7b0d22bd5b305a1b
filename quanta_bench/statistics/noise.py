"""Two noises: training seeds and test items, and the error of a mean that has both.

Crossed random effects: score = mean + seed + item + seed x item. With several seeds, the variance
of the mean is V = V_items + max(V_seeds - V_both, 0), where V_both is the seed x item noise that
V_items and V_seeds both contain (Owen 2007, "The pigeonhole bootstrap", arXiv:0712.1111).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from quanta_bench.statistics.scores import Scores

ENOUGH = 4
"""From so many degrees of freedom of the seeds on, Satterthwaite's approximation is good enough."""


@dataclass(frozen=True)
class Noise:
    """The error of a mean over seeds and items.

    Attributes:
        items: variance of the mean from test items, in the score's unit squared.
        items_df: its degrees of freedom.
        seeds: variance of the mean between seeds, seed x item noise included; NaN for one seed.
        seeds_df: its degrees of freedom; 0 for one seed.
        both: what `items` and `seeds` both contain.
    """

    items: float
    items_df: float
    seeds: float = math.nan
    seeds_df: float = 0
    both: float = 0.0

    @property
    def variance(self) -> float:
        """Variance of the mean: of both noises, or of items alone where there is one seed."""
        if not self.seeds_df:
            return self.items
        return self.items + max(self.seeds - self.both, 0.0)

    @property
    def standard_error(self) -> float:
        """Square root of the variance."""
        return math.sqrt(self.variance)

    @property
    def df(self) -> float:
        """Satterthwaite's degrees of freedom, at least those of the less certain part."""
        if not self.seeds_df or not self.variance:
            return self.items_df
        spread = self.seeds**2 / self.seeds_df + self.items**2 / self.items_df
        return min(
            max(self.variance**2 / spread, min(self.seeds_df, self.items_df)),
            self.seeds_df + self.items_df,
        )

    def p_value(self, effect: float) -> float:
        """Two-sided p of a mean so far from zero.

        Student's t with Satterthwaite's degrees of freedom; below `ENOUGH` degrees of the seeds,
        where that is too bold, the mean of both parts' p, weighted by their variances (the
        principle of Cochran and Cox 1950).
        """
        if math.isnan(self.variance):
            return math.nan
        if not self.variance:
            return 1.0 if not effect else 0.0
        return self._tail(abs(effect) / self.standard_error)

    def _tail(self, t: float) -> float:
        if not self.seeds_df or self.seeds_df >= ENOUGH:
            return _two_sided(t, self.df)
        weight = min(self.seeds / self.variance, 1.0)
        return weight * _two_sided(t, self.seeds_df) + (1 - weight) * _two_sided(t, self.items_df)

    def quantile(self, alpha: float = 0.05) -> float:
        """How many standard errors an interval reaches to each side."""
        if not math.isfinite(self.variance):
            return math.nan
        if not self.variance:
            return 0.0
        least = min(self.items_df, self.seeds_df or self.items_df)
        most = float(special.stdtrit(max(least, 1), 1 - alpha / 2)) + 1
        return float(optimize.brentq(lambda t: self._tail(t) - alpha, 0.0, most))


def _two_sided(t: float, df: float) -> float:
    return float(2 * special.stdtr(df, -t))


def noise(scores: Scores) -> Noise:
    """The noise of a row's mean, or of a difference of two rows.

    Returns:
        With one seed, the noise of items alone. NaN variances where there is one group of items.
    """
    count = scores.seeds
    total = scores.parts.sum(axis=0) / count
    by_stratum = np.bincount(scores.strata, weights=total**2)
    freedom = np.bincount(scores.strata) - 1.0
    items = float(by_stratum.sum())
    spread = float((by_stratum**2 / np.maximum(freedom, 1)).sum())
    items_df = items**2 / spread if spread else float(max(freedom.sum(), 1))
    if count == 1:
        return Noise(items, items_df)
    own = float((scores.parts**2).sum())
    shared = count**2 * items - own
    both = (own - shared / (count - 1)) / count**2
    seeds = float(scores.means.var(ddof=1)) / count
    return Noise(items, items_df, seeds, count - 1, max(both, 0.0))


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes:
        mean: over seeds and items.
        low: lower bound.
        high: upper bound.
        seeds: number of seeds. With one, the interval accounts for items alone.
        groups: number of groups of test items.
        noise: what the interval is made of.
    """

    mean: float
    low: float
    high: float
    seeds: int
    groups: int
    noise: Noise

    @property
    def half(self) -> float:
        """Half the width of the interval; NaN where there is none."""
        return (self.high - self.low) / 2


def estimate(scores: Scores, alpha: float = 0.05) -> Estimate:
    """A row's mean with an interval of both noises; with one seed, of items alone."""
    found = noise(scores)
    half = found.quantile(alpha) * found.standard_error
    mean = float(scores.means.mean())
    return Estimate(mean, mean - half, mean + half, scores.seeds, len(scores.groups), found)
