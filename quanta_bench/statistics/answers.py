"""What the answers of a row say of it: constants, distinct answers, consistency, calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations

import numpy as np


def best_constant(
    answers: Sequence[Hashable], measure: Callable[[Hashable], float]
) -> tuple[Hashable, float]:
    """The answer that scores best if it is given to every item, and its score.

    Args:
        answers: the answers that occur, candidates or labels.
        measure: the metric of all items if each is answered so.

    Raises:
        ValueError: there are no answers.
    """
    scored = [(measure(answer), answer) for answer in dict.fromkeys(answers)]
    if not scored:
        raise ValueError("no answers")
    best = max(scored, key=lambda pair: pair[0])
    return best[1], best[0]


def constant_metric(metric: str, gold: Sequence[object], answer: object) -> float:
    """Accuracy, F1 of class 1, or Matthews and other correlations of one answer to every item.

    Raises:
        ValueError: the metric is none of these.
    """
    right = sum(value == answer for value in gold)
    if metric == "accuracy":
        return right / len(gold)
    if metric == "f1":
        # Precision is the share of positives, recall is 1; without positive answers F1 is 0.
        return 2 * right / (right + len(gold)) if answer == 1 else 0.0
    if metric in ("matthews", "pearson", "spearman"):
        return 0.0
    raise ValueError(f"no constant of the metric {metric!r}")


def distinct(predictions: Sequence[object]) -> int:
    """Number of different answers; none at all does not count."""
    return len({str(one) for one in predictions if one is not None})


def consistency(seeds: Sequence[Mapping[str, object]]) -> float:
    """Share of items that two seeds answer alike, mean over pairs of seeds.

    Args:
        seeds: each seed's predictions by item.

    Returns:
        A fraction; NaN with fewer than two seeds or without an item that two of them share.
    """
    shares = []
    for one, other in combinations(seeds, 2):
        shared = one.keys() & other.keys()
        if shared:
            shares.append(sum(one[item] == other[item] for item in shared) / len(shared))
    return float(np.mean(shares)) if shares else math.nan


def probabilities(scores: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Softmax of candidates' log-likelihoods, nats; after any normalisation by length."""
    array = np.asarray(scores, dtype=float)
    raised = np.exp(array - array.max())
    return np.asarray(raised / raised.sum())


def brier(chances: Sequence[Sequence[float]], gold: Sequence[int]) -> float:
    """Brier's score: squared error of all candidates' probabilities, mean over items, 0 to 2."""
    total = 0.0
    for given, right in zip(chances, gold, strict=True):
        hot = np.zeros(len(given))
        hot[right] = 1
        total += float(((np.asarray(given) - hot) ** 2).sum())
    return total / len(gold)


def calibration_error(
    chances: Sequence[Sequence[float]], gold: Sequence[int], bins: int = 10
) -> float:
    """Expected calibration error (Guo et al. 2017): |accuracy - confidence| over equal-width bins.

    Args:
        chances: candidates' probabilities, an item each.
        gold: index of the right candidate, an item each.
        bins: number of bins of confidence.
    """
    confidence = np.array([max(one) for one in chances])
    right = np.array([int(np.argmax(one)) == g for one, g in zip(chances, gold, strict=True)])
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(gold))
