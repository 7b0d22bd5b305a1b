"""Errors held against closed forms, and against the spread of simulated data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quanta_bench.evaluation import stats

SCORES = st.lists(st.floats(-100, 100), min_size=2, max_size=30)


def sandwich(values: list[float], groups: list[str]) -> float:
    """The cluster-robust error of an intercept-only regression, spelled out as matrices.

    ``(X'X)^-1 (sum over groups of X_g' e_g e_g' X_g) (X'X)^-1`` with X a column of ones, and the
    factor G / (G - 1) that Stata and statsmodels apply (their (n - 1) / (n - k) is 1 here).
    """
    y = np.array(values)
    ones = np.ones((len(y), 1))
    residuals = y - y.mean()
    meat = np.zeros((1, 1))
    names = sorted(set(groups))
    for name in names:
        rows = [i for i, group in enumerate(groups) if group == name]
        score = ones[rows].T @ residuals[rows]
        meat += np.outer(score, score)
    bread = np.linalg.inv(ones.T @ ones)
    count = len(names)
    return float(np.sqrt((bread @ meat @ bread)[0, 0] * count / (count - 1)))


@given(SCORES)
def test_items_that_stand_alone_have_the_usual_standard_error(values: list[float]) -> None:
    alone = [str(n) for n in range(len(values))]
    usual = np.std(values, ddof=1) / math.sqrt(len(values))
    assert stats.clustered_standard_error(values, alone) == pytest.approx(usual, abs=1e-9)


@given(st.lists(st.tuples(st.floats(-10, 10), st.sampled_from("abcd")), min_size=2, max_size=30))
def test_groups_give_the_sandwich_estimate(items: list[tuple[float, str]]) -> None:
    values, groups = [value for value, _ in items], [group for _, group in items]
    found = stats.clustered_standard_error(values, groups)
    if len(set(groups)) < 2:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(sandwich(values, groups), abs=1e-9)


@given(SCORES, st.integers(2, 4))
def test_copies_in_one_group_add_no_certainty(values: list[float], copies: int) -> None:
    names = [str(n) for n in range(len(values))]
    once = stats.clustered_standard_error(values, names)
    assert stats.clustered_standard_error(values * copies, names * copies) == pytest.approx(
        once, abs=1e-9
    )


@given(SCORES, st.floats(-10, 10), st.floats(0.1, 10), st.randoms(use_true_random=False))
def test_the_error_follows_the_unit_and_ignores_order_and_offset(
    values: list[float], offset: float, unit: float, random: object
) -> None:
    groups = [str(n // 2) for n in range(len(values))]
    order = list(range(len(values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    before = stats.clustered_standard_error(values, groups)
    after = stats.clustered_standard_error(
        [unit * values[n] + offset for n in order], [groups[n] for n in order]
    )
    assert after == pytest.approx(unit * before, nan_ok=True, abs=1e-8)


def test_by_hand() -> None:
    # Mean 0.5; the groups' residual sums are 1, -1 and 0, so sqrt(2 * 3 / 2) / 6.
    values, groups = [1, 1, 0, 0, 1, 0], ["a", "a", "b", "b", "c", "c"]
    assert stats.clustered_standard_error(values, groups) == pytest.approx(math.sqrt(3) / 6)


def test_the_clustered_error_is_the_spread_of_means_and_the_naive_one_is_not() -> None:
    """Items in groups of 4 that share most of their variance, drawn 2,000 times."""
    random = np.random.default_rng(0)
    means, clustered, naive = [], [], []
    groups = np.repeat(np.arange(40), 4).astype(str).tolist()
    for _ in range(2000):
        values = np.repeat(random.normal(size=40), 4) + 0.5 * random.normal(size=160)
        means.append(values.mean())
        clustered.append(stats.clustered_standard_error(values.tolist(), groups))
        naive.append(values.std(ddof=1) / math.sqrt(160))
    spread = float(np.std(means))
    # The spread of 2,000 means is itself known to 1.6 %.
    assert np.mean(clustered) == pytest.approx(spread, rel=0.06)
    assert np.mean(naive) < 0.7 * spread


def test_what_cannot_be_said_is_nan() -> None:
    assert math.isnan(stats.clustered_standard_error([], []))
    assert math.isnan(stats.clustered_standard_error([1.0], ["a"]))
    assert math.isnan(stats.clustered_standard_error([1.0, 0.0], ["a", "a"]))
    assert math.isnan(stats.mean([]))
    assert math.isnan(stats.deviation([]))
    assert math.isnan(stats.deviation([3.0]))
    assert math.isnan(stats.error_of_average([]))


def test_equal_scores_have_no_error() -> None:
    assert stats.clustered_standard_error([1.0, 1.0, 1.0], ["a", "b", "b"]) == 0.0


@given(SCORES)
def test_mean_and_deviation_are_numpys_with_n_minus_1(values: list[float]) -> None:
    assert stats.mean(values) == pytest.approx(math.fsum(values) / len(values), abs=1e-9)
    variance = sum((v - stats.mean(values)) ** 2 for v in values) / (len(values) - 1)
    assert stats.deviation(values) == pytest.approx(math.sqrt(variance), abs=1e-6)


def test_the_error_of_an_average_is_that_of_independent_terms() -> None:
    # The average of 8 tasks with error 2 each: 2 / sqrt(8).
    assert stats.error_of_average([2.0] * 8) == pytest.approx(2 / math.sqrt(8))
    assert stats.error_of_average([3.0, 4.0]) == pytest.approx(2.5)
    assert stats.error_of_average([3.0, 4.0], ["drop", "drop"]) == pytest.approx(3.5)
    assert stats.error_of_average([1.0, 2.0, 4.0], ["a", "a", "b"]) == pytest.approx(5 / 3)


@given(SCORES)
def test_leaving_out_each_item_gives_a_mean_its_usual_error(values: list[float]) -> None:
    alone = [str(n) for n in range(len(values))]
    found = stats.jackknife_standard_error(stats.mean, values, alone)
    assert found == pytest.approx(stats.clustered_standard_error(values, alone), abs=1e-9)


def test_the_error_of_a_correlation_is_its_spread_over_samples() -> None:
    rng = np.random.default_rng(0)

    def correlation(pairs: Any) -> float:
        return float(np.corrcoef(np.asarray(pairs), rowvar=False)[0, 1])

    def sample() -> Any:
        shared = rng.normal(size=(60, 1))
        return list(shared + rng.normal(size=(60, 2)))

    samples = [sample() for _ in range(200)]
    spread = np.std([correlation(one) for one in samples])
    names = [str(n) for n in range(60)]
    errors = [stats.jackknife_standard_error(correlation, one, names) for one in samples[:40]]
    assert np.mean(errors) == pytest.approx(spread, rel=0.2)


def test_twins_are_left_out_together_and_one_group_has_no_error() -> None:
    values = [1.0, 0.0, 1.0, 1.0]
    twice = [value for value in values for _ in range(2)]
    pairs = [str(n // 2) for n in range(8)]
    once = stats.jackknife_standard_error(stats.mean, values, list("abcd"))
    assert stats.jackknife_standard_error(stats.mean, twice, pairs) == pytest.approx(once)
    assert math.isnan(stats.jackknife_standard_error(stats.mean, values, ["a"] * 4))
    assert math.isnan(stats.jackknife_standard_error(lambda some: math.inf, values, list("abcd")))
