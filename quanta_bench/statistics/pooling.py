"""Training noise estimated from all rows of a table together.

Two or three seeds of one row say next to nothing of its spread. How the rows of a table differ
from seed to seed, beyond what all of them share, is one variance with many degrees of freedom: the
row x seed interaction of an analysis of variance.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy import special

from quanta_bench.statistics.noise import Noise, noise
from quanta_bench.statistics.scores import Floats, Scores

Row = TypeVar("Row")

UNLIKE = 0.01
"""Level of the F-test by which a spread over seeds is unlike that of all rows together."""


@dataclass(frozen=True)
class Pool:
    """What the trained rows of a table say together of the noise of training.

    Attributes:
        variance: mean square of the row x seed interaction, in the score's unit squared.
        df: its degrees of freedom, (rows - 1)(seeds - 1).
        items: variance of a row's mean over seeds from items, as the interaction contains it.
        own: variance of a row's mean from its training alone, beyond that of its items.
        shared: variance of all rows' means alike, as from a sample or an order of training items
            that they share.
        shared_df: its degrees of freedom, seeds - 1.
    """

    variance: float
    df: int
    items: float
    own: float
    shared: float
    shared_df: int


def pool(trained: Sequence[Scores], untrained: Scores | None = None) -> Pool | None:
    """The training noise of rows; ``None`` with fewer than two rows or seeds, or unequal seeds.

    Args:
        trained: scores on the same seeds and items.
        untrained: a row that does not train, on the same too. From seed to seed it varies by items
            alone, so less of what rows share can be mistaken for noise of training.
    """
    means = seed_means(trained)
    found = None if means is None else _interaction(means)
    if found is None:
        return None
    variance, df = found
    rows, seeds = len(trained), trained[0].seeds
    middle = _mean(trained)
    items = sum(noise(scores.minus(middle)).both for scores in trained) / (rows - 1)
    own = max(variance / seeds - items, 0.0)
    if untrained is not None and untrained.seeds == seeds:
        middle = middle.minus(untrained)
    grand = noise(middle)
    shared = max(grand.seeds - grand.both - own / rows, 0.0)
    return Pool(variance, df, items, own, shared, seeds - 1)


def unlike(difference: Floats, others: Floats, rows: int = 1, level: float = UNLIKE) -> bool:
    """Whether a difference varies far more over seeds than the other rows, as if a row diverged.

    Args:
        difference: float64 of shape (seeds,): a row less another, or less the mean of several
            others.
        others: float64 of shape (rows, seeds): the other rows.
        rows: how many rows the second is the mean of.
        level: of the F-test.
    """
    found = _interaction(others)
    if found is None or not found[0]:
        return False
    variance, df = found
    ratio = float(difference.var(ddof=1)) / ((1 + 1 / rows) * variance)
    return ratio > float(special.fdtri(len(difference) - 1, df, 1 - level))


def seed_means(trained: Sequence[Scores]) -> Floats | None:
    """The score of each row and seed, of shape (rows, seeds); ``None`` if rows differ in seeds."""
    if len({scores.seeds for scores in trained}) != 1:
        return None
    return np.array([scores.means for scores in trained])


def diverging(trained: Mapping[Row, Scores]) -> set[Row]:
    """The rows that vary far more over seeds than the mean of the others.

    F-tests at `UNLIKE` for all rows together (Bonferroni).
    """
    means = seed_means(list(trained.values()))
    if means is None or len(means) < 3:
        return set()
    found: set[Row] = set()
    for number, name in enumerate(trained):
        others = np.delete(means, number, axis=0)
        gap = means[number] - others.mean(axis=0)
        if unlike(gap, others, len(others), UNLIKE / len(trained)):
            found.add(name)
    return found


def row_noises(rows: Mapping[Row, Scores], fixed: Collection[Row] = ()) -> dict[Row, Noise]:
    """The error of each row's own mean.

    The noise of test items is the row's own, that of training the pool's, unless the row diverges.

    Args:
        rows: scores by row, on the same seeds and items.
        fixed: rows that do not train; theirs is the noise of items alone.
    """
    trained = {name: scores for name, scores in rows.items() if name not in fixed}
    errors = {
        name: noise(scores.pooled() if name in fixed else scores) for name, scores in rows.items()
    }
    still = next((scores for name, scores in rows.items() if name in fixed), None)
    found = pool(list(trained.values()), still)
    if found is not None:
        for name in trained.keys() - diverging(trained):
            errors[name] = with_training(errors[name], found)
    return errors


def with_training(error: Noise, found: Pool) -> Noise:
    """The noise of a row's mean, or of its difference to a row that does not train."""
    own = found.items + found.own
    total = own + found.shared
    # Satterthwaite: what all rows share has the degrees of freedom of the seeds alone.
    spread = own**2 / found.df + found.shared**2 / found.shared_df
    df = total**2 / spread if spread else float(found.df)
    return replace(error, seeds=total, seeds_df=df, both=found.items)


def _interaction(means: Floats) -> tuple[float, int] | None:
    if means.shape[0] < 2 or means.shape[1] < 2:
        return None
    rest = means - means.mean(0) - means.mean(1, keepdims=True) + means.mean()
    df = (means.shape[0] - 1) * (means.shape[1] - 1)
    return float((rest**2).sum()) / df, df


def _mean(rows: Sequence[Scores]) -> Scores:
    return replace(
        rows[0],
        means=np.mean([scores.means for scores in rows], axis=0),
        parts=np.mean([scores.parts for scores in rows], axis=0),
        totals=np.mean([scores.totals for scores in rows], axis=0),
    )
