"""Rows compared, paired over seeds and items, and how many comparisons that were."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special  # scipy.stats takes half a second to import

from quanta_bench.statistics.noise import Noise, noise
from quanta_bench.statistics.pooling import diverging, pool, seed_means, unlike, with_training
from quanta_bench.statistics.scores import Floats, Scores

FLIPS = 9999
"""Random flips of signs where there are too many to go through."""

MOST_KEPT = 300
"""Parts for which signs are kept: 32 times 3 MB."""

MOST_ENUMERATED = 13
"""Up to so many groups that differ, all flips of signs are gone through."""


@dataclass(frozen=True)
class Difference:
    """A row less another, paired over seeds and items.

    Attributes:
        row: the row.
        reference: the row it is compared with.
        effect: row less reference, in the scores' unit.
        error: its noise; with one seed, that of items alone.
        p: two-sided p of this comparison alone; NaN where nothing can be said.
        p_holm: p after Holm's correction for all comparisons of the family.
        seeds: number of seeds.
        groups: number of groups of test items.
        comparisons: how many are in the family.
        test: how p was found: ``t`` or ``sign-flip``.
    """

    row: str
    reference: str
    effect: float
    error: Noise
    p: float
    seeds: int
    groups: int
    test: str
    p_holm: float = math.nan
    comparisons: int = 1

    @property
    def shown(self) -> bool:
        """Whether a difference is shown at 5 %, after Holm."""
        return self.p_holm < 0.05

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of this comparison alone."""
        half = self.error.quantile() * self.error.standard_error
        return self.effect - half, self.effect + half

    @property
    def smallest(self) -> float:
        """The smallest difference that this design detects with 80 % power.

        At the level that Holm demands of the smallest p of the family.
        """
        return smallest_difference(self.error, 0.05 / self.comparisons)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p (Holm 1979); NaN is no comparison and stays NaN."""
    known = [n for n in np.argsort(values, kind="stable").tolist() if not math.isnan(values[n])]
    adjusted, largest = [math.nan] * len(values), 0.0
    for place, number in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - place) * values[number]))
        adjusted[number] = largest
    return adjusted


def power(effect: float, error: Noise, alpha: float = 0.05) -> float:
    """The probability of showing a difference, if the noise is this.

    That of a noncentral t, summed over quantiles of chi-squared: scipy's is NaN far out.
    """
    if not error.variance:
        return 1.0 if effect else alpha
    critical, shift = error.quantile(alpha), abs(effect) / error.standard_error
    places = (np.arange(500) + 0.5) / 500
    chi2 = 2 * special.gammaincinv(error.df / 2, places)
    bounds = critical * np.sqrt(chi2 / error.df)
    return float((special.ndtr(shift - bounds) + special.ndtr(-bounds - shift)).mean())


def smallest_difference(error: Noise, alpha: float = 0.05, wanted: float = 0.8) -> float:
    """The smallest true difference that is shown with so much power.

    NaN where the noise is unknown, as where all scores are the same: that is no certainty.
    """
    if not math.isfinite(error.variance) or not error.variance:
        return math.nan
    unit = error.standard_error
    # With one degree of freedom, 80 % power takes 1.3 critical values; with many, one and 0.84.
    most = 2 * error.quantile(alpha) + 4
    shift = optimize.brentq(lambda x: power(x * unit, error, alpha) - wanted, 1e-6, most)
    return float(shift) * unit


def sign_flip(parts: Floats) -> float:
    """Two-sided p of a sum, under all flips of its parts' signs (Fisher's permutation test).

    Exact for up to `MOST_ENUMERATED` parts that are not zero; beyond, by `FLIPS` random flips,
    of which the one observed is counted as one (Phipson and Smyth 2010).

    Args:
        parts: float64 of shape (groups,), the contributions of groups of items to the difference.
    """
    differing = parts[parts != 0]
    observed = abs(differing.sum())
    close = observed * (1 - 1e-9)
    if not len(differing):
        return 1.0
    if len(differing) <= MOST_ENUMERATED:
        signs = 1 - 2 * (np.arange(2 ** len(differing))[:, None] >> np.arange(len(differing)) & 1)
        return float((np.abs(signs @ differing) >= close).mean())
    drawn = (_kept_flips if len(differing) <= MOST_KEPT else _flips)(len(differing))
    hits = 0
    for start in range(0, FLIPS, 1000):
        signs = drawn[start : start + 1000].astype(np.float64)
        hits += int((np.abs(signs @ differing) >= close).sum())
    return (hits + 1) / (FLIPS + 1)


def _flips(parts: int) -> NDArray[np.int8]:
    """Random signs of shape (`FLIPS`, parts): the same for every number of parts."""
    random = np.random.default_rng(0)
    counts = [min(1000, FLIPS - start) for start in range(0, FLIPS, 1000)]
    drawn = [random.integers(0, 2, (count, parts), dtype=np.int8) for count in counts]
    return np.concatenate(drawn) * np.int8(2) - np.int8(1)


# Rows of a table differ in about as many parts, and drawing takes longer than what is done with it.
_kept_flips = lru_cache(maxsize=32)(_flips)


def compare(
    rows: Mapping[str, Scores],
    pairs: Iterable[tuple[str, str]],
    fixed: Iterable[str] = (),
) -> list[Difference]:
    """Differences of rows, the p corrected by Holm over all of the pairs.

    The noise of training is estimated from all trained rows together (`pool`): with two seeds, a
    pair of rows alone says nearly nothing about it. A pair that varies far more than the other rows
    keeps its own spread.

    Args:
        rows: scores by row, on the same seeds and items.
        pairs: row and reference.
        fixed: rows that do not train: where they have one score, it counts for every seed.
    """
    untrained = set(fixed)
    trained = {name: scores for name, scores in rows.items() if name not in untrained}
    seeds = max((scores.seeds for scores in trained.values()), default=1)
    full = {n: s.repeated(seeds) if s.seeds == 1 else s for n, s in rows.items()}
    still = next((full[name] for name in full if name in untrained), None)
    pooled, diverged = pool(list(trained.values()), still), diverging(trained)
    means = seed_means(list(trained.values()))
    place = {name: number for number, name in enumerate(trained)}
    found = []
    for row, reference in pairs:
        alike = len(untrained & {row, reference})
        difference = full[row].minus(full[reference])
        if alike == 2:
            difference = difference.pooled()
        error = noise(difference)
        if pooled is not None and alike == 1 and not {row, reference} & diverged:
            error = with_training(error, pooled)
        elif pooled is not None and means is not None and not alike:
            others = np.delete(means, [place[row], place[reference]], axis=0)
            if not unlike(difference.means, others):
                spread = 2 * pooled.variance / difference.seeds
                error = replace(error, seeds=spread, seeds_df=pooled.df)
        found.append(_pair(row, reference, difference, error))
    adjusted = holm([difference.p for difference in found])
    tested = max(sum(not math.isnan(p) for p in adjusted), 1)
    return [
        replace(difference, p_holm=p, comparisons=tested)
        for difference, p in zip(found, adjusted, strict=True)
    ]


def _pair(row: str, reference: str, difference: Scores, error: Noise) -> Difference:
    effect = float(difference.means.mean())
    if difference.seeds == 1:
        unknown = math.isnan(error.variance)
        p, test = math.nan if unknown else sign_flip(difference.totals[0]), "sign-flip"
    else:
        p, test = error.p_value(effect), "t"
    return Difference(
        row=row,
        reference=reference,
        effect=effect,
        error=error,
        p=p,
        seeds=difference.seeds,
        groups=len(difference.groups),
        test=test,
    )
