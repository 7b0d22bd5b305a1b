"""Intervals, comparisons and letters against formulas, other libraries and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from simulated_scores import World
from sklearn.metrics import brier_score_loss, f1_score

from quanta_bench.evaluation.stats import clustered_standard_error, jackknife_standard_error
from quanta_bench.statistics import answers, scores
from quanta_bench.statistics.comparison import (
    Difference,
    compare,
    holm,
    power,
    sign_flip,
    smallest_difference,
)
from quanta_bench.statistics.letters import letters
from quanta_bench.statistics.noise import Noise, estimate, noise
from quanta_bench.statistics.pooling import pool, row_noises


def test_one_seed_has_the_clustered_error_of_its_items() -> None:
    values, groups = [1.0, 0, 1, 1, 0, 0.5], list("aabbcc")
    found = noise(scores.of_items([values], [groups]))
    assert found.standard_error == pytest.approx(clustered_standard_error(values, groups))
    assert found.items_df == pytest.approx(2)


def test_one_seed_with_items_of_their_own_has_students_interval() -> None:
    values = np.random.default_rng(0).normal(size=30)
    found = estimate(scores.of_items([list(values)], [[f"g{n:02d}" for n in range(30)]]))
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_seeds_without_item_noise_have_students_interval() -> None:
    means = [0.4, 0.5, 0.7, 0.45, 0.6]
    made = scores.of_items([[m, m, m] for m in means], [list("abc")] * 5)
    found = estimate(made)
    low, high = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6)


def test_crossed_variance_is_that_of_an_analysis_of_variance() -> None:
    """Mean squares of seeds, items and their interaction give the variance of the mean."""
    values = World(rows=1, groups=12, in_group=1, seeds=4, row_seed=0.3).values(
        np.random.default_rng(1)
    )[0]
    seeds, items = values.shape
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    of_seeds = items * values.mean(1).var(ddof=1)
    of_items = seeds * values.mean(0).var(ddof=1)
    both = (rest**2).sum() / ((seeds - 1) * (items - 1))
    made = scores.of_items(list(values), [[f"g{n:02d}" for n in range(items)]] * seeds)
    assert of_seeds > both
    assert noise(made).variance == pytest.approx((of_seeds + of_items - both) / (seeds * items))


def test_seeds_on_other_items_have_no_noise_in_common() -> None:
    random = np.random.default_rng(2)
    values = [list(random.normal(size=20)) for _ in range(3)]
    groups = [[f"{seed}-{n}" for n in range(20)] for seed in range(3)]
    found = noise(scores.of_items(values, groups))
    own = [np.var(one, ddof=1) / 20 for one in values]
    assert found.items == pytest.approx(sum(own) / 9)
    assert found.both == pytest.approx(sum(own) / 9)


def test_a_metric_of_all_items_has_the_jackknife_error() -> None:
    random = np.random.default_rng(3)
    items = [(int(g), int(p)) for g, p in random.integers(0, 2, (40, 2))]
    groups = [f"g{n // 2:02d}" for n in range(40)]

    def metric(some: object) -> float:
        gold, predicted = zip(*some, strict=True)  # type: ignore[call-overload]
        return float(f1_score(gold, predicted))

    made = scores.of_metric(metric, [items], [groups])
    assert noise(made).standard_error == pytest.approx(
        jackknife_standard_error(metric, items, groups)
    )
    assert made.means[0] == metric(items)
    assert made.totals.sum() == pytest.approx(metric(items))


def test_the_simulated_scores_are_those_of_their_items() -> None:
    world = World(rows=1, seeds=2, groups=5, in_group=3)
    (drawn,) = world.draw(np.random.default_rng(0)).values()
    values = world.values(np.random.default_rng(0))[0]
    names = [f"g{n:04d}" for n in np.repeat(range(5), 3)]
    made = scores.of_items(list(values), [names, names])
    for name in ("means", "parts", "totals"):
        assert getattr(drawn, name) == pytest.approx(getattr(made, name))


def test_an_average_adds_the_errors_of_its_columns() -> None:
    random = np.random.default_rng(4)
    columns = [
        scores.of_items([list(random.normal(size=n))], [[f"{k:02d}" for k in range(n)]])
        for n in (10, 20)
    ]
    both = noise(scores.average(columns, of=["one task", "another"])).standard_error
    assert both == pytest.approx(
        math.hypot(*(noise(column).standard_error for column in columns)) / 2
    )


def test_an_average_of_two_metrics_of_the_same_items_has_the_error_of_the_items_average() -> None:
    """F1 and exact match of an answer go together, so that their errors do not cancel."""
    random = np.random.default_rng(5)
    exact = random.integers(0, 2, 40).astype(float)
    f1 = np.clip(exact + 0.2 * random.random(40), 0, 1)
    groups = [f"{k:02d}" for k in range(40)]
    columns = [scores.of_items([list(values)], [groups]) for values in (f1, exact)]
    found = scores.average(columns, of=["drop", "drop"])
    own = scores.of_items([list((f1 + exact) / 2)], [groups])
    assert noise(found).standard_error == pytest.approx(noise(own).standard_error)
    assert found.means == pytest.approx(own.means)
    assert len(found.groups) == 40
    other = scores.of_items([list(exact)], [[f"other {k:02d}" for k in range(40)]])
    with pytest.raises(ValueError, match="other groups"):
        scores.average([columns[0], other], of=["drop", "drop"])


def test_two_rows_alone_are_compared_by_the_paired_t_of_their_seeds() -> None:
    """Without noise of items, the design is that of a paired t-test."""
    one, other = [0.5, 0.7, 0.6, 0.9], [0.4, 0.65, 0.35, 0.8]
    rows = {
        name: scores.of_items([[m] * 3 for m in means], [list("abc")] * 4)
        for name, means in (("one", one), ("other", other))
    }
    (found,) = compare(rows, [("one", "other")])
    assert found.p == pytest.approx(stats.ttest_rel(one, other).pvalue, rel=1e-6)


def test_sign_flips_are_those_of_scipy() -> None:
    parts = np.array([0.2, -0.1, 0.4, 0.3, 0.0, 0.15, -0.05])
    found = stats.permutation_test((parts,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(parts) == pytest.approx(found.pvalue)


def test_many_sign_flips_come_near_the_exact_p() -> None:
    """Of n groups that differ alike, the p is McNemar's exact one."""
    parts = np.array([1.0] * 20 + [-1.0] * 8 + [0.0] * 50)
    exact = stats.binomtest(20, 28).pvalue
    assert sign_flip(parts) == pytest.approx(exact, abs=0.008)


def test_one_seed_is_compared_by_flips_of_its_groups() -> None:
    groups = [["a", "a", "b", "c", "d", "e"]]
    rows = {
        "one": scores.of_items([[1, 1, 1, 1, 1, 0]], groups),
        "other": scores.of_items([[0, 0, 0, 1, 0, 0]], groups),
    }
    (found,) = compare(rows, [("one", "other")])
    assert found.test == "sign-flip"
    # Groups add 2, 1 and 1: of eight flips, two are as far from zero.
    assert found.p == pytest.approx(2 / 8)


def test_a_row_that_does_not_train_has_no_noise_of_seeds() -> None:
    random = np.random.default_rng(5)
    drawn = World(rows=3, seeds=3).draw(random)
    base = scores.of_items([list(random.normal(size=50))], [[f"g{n:04d}" for n in range(50)]])
    found = compare({**drawn, "base": base}, [("base", "row0"), ("row1", "row0")], ["base"])
    pooled = pool(list(drawn.values()))
    assert pooled is not None
    assert found[0].error.seeds == pytest.approx(pooled.items + pooled.own + pooled.shared)
    assert found[1].error.seeds == pytest.approx(2 * pooled.variance / 3)
    assert found[1].error.seeds_df == 4


def test_pooled_noise_is_that_of_an_analysis_of_variance() -> None:
    """Rows x seeds without item noise: the mean squares of a two-way analysis of variance."""
    random = np.random.default_rng(9)
    means = random.normal(size=(5, 4)) + 3 * random.normal(size=4)
    rows = {
        f"row{n}": scores.of_items([[v, v] for v in of_row], [["a", "b"]] * 4)
        for n, of_row in enumerate(means)
    }
    centred = means - means.mean(0) - means.mean(1, keepdims=True) + means.mean()
    residual = (centred**2).sum() / (4 * 3)
    of_seeds = 5 * means.mean(0).var(ddof=1)
    found = pool(list(rows.values()))
    assert found is not None
    assert (found.df, found.shared_df) == (12, 3)
    assert found.variance == pytest.approx(residual)
    assert found.own == pytest.approx(residual / 4)
    assert found.shared == pytest.approx((of_seeds - residual) / 5 / 4)
    assert row_noises(rows)["row0"].variance == pytest.approx(found.own + found.shared)


def test_seeds_on_items_of_their_own_keep_the_pool_free_of_item_noise() -> None:
    """Rows that differ by items alone, each seed on other items: no noise of training is left."""
    random = np.random.default_rng(4)
    kept = []
    for _ in range(200):
        values = random.normal(size=(4, 3, 30))
        groups = [[f"{seed}-{n}" for n in range(30)] for seed in range(3)]
        rows = [scores.of_items([list(v) for v in of_row], groups) for of_row in values]
        found = pool(rows)
        assert found is not None
        kept.append(found.variance / 3 - found.items)
    assert abs(np.mean(kept)) < 3 * np.std(kept) / np.sqrt(200)


def test_a_row_that_diverges_keeps_its_own_spread() -> None:
    world = World(rows=8, seeds=3, row_seed=[0.01] * 7 + [0.5])
    drawn = world.draw(np.random.default_rng(8))
    found = row_noises(drawn)
    assert found["row7"].seeds == pytest.approx(noise(drawn["row7"]).seeds)
    assert found["row0"].seeds_df > 2


def test_a_pair_that_varies_far_more_than_the_others_keeps_its_own_spread() -> None:
    world = World(rows=8, seeds=3, row_seed=[0.01] * 7 + [0.5])
    found = compare(world.draw(np.random.default_rng(8)), [("row7", "row0"), ("row1", "row0")])
    assert found[0].error.seeds_df == 2
    assert found[1].error.seeds_df == 14


def test_rows_on_other_items_cannot_be_paired() -> None:
    one, other = (scores.of_items([[0, 1]], [list(names)]) for names in ("ab", "bc"))
    with pytest.raises(ValueError, match="other items"):
        one.minus(other)


def test_holm_is_that_of_the_textbook() -> None:
    """The four p of Holm's procedure as in its usual example, .01 .04 .03 .005."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert np.isnan(holm([math.nan, 0.04])[0])
    assert holm([math.nan, 0.04])[1] == pytest.approx(0.04)


@pytest.mark.parametrize("freedom", [2.0, 5.0, 40.0])
def test_power_is_that_of_the_noncentral_t(freedom: float) -> None:
    error = Noise(items=4.0, items_df=freedom)
    critical = stats.t.isf(0.025, freedom)
    exact = stats.nct.sf(critical, freedom, 3.0) + stats.nct.cdf(-critical, freedom, 3.0)
    assert power(6.0, error) == pytest.approx(exact, abs=2e-3)
    assert power(smallest_difference(error), error) == pytest.approx(0.8, abs=1e-6)


def brute_letters(rows: list[str], different: set[frozenset[str]]) -> set[frozenset[str]]:
    """The largest sets of rows of which no two differ."""
    alike = [
        frozenset(group)
        for size in range(1, len(rows) + 1)
        for group in itertools.combinations(rows, size)
        if not any(frozenset(pair) in different for pair in itertools.combinations(group, 2))
    ]
    return {group for group in alike if not any(group < other for other in alike)}


def test_letters_are_the_largest_groups_that_do_not_differ() -> None:
    random, rows = np.random.default_rng(6), list("ABCDEF")
    for _ in range(40):
        pairs = [p for p in itertools.combinations(rows, 2) if random.random() < 0.35]
        found = letters(rows, pairs)
        groups = {
            frozenset(row for row in rows if letter in found[row])
            for letter in set("".join(found.values()))
        }
        assert groups == brute_letters(rows, {frozenset(pair) for pair in pairs})
        assert found["A"].startswith("a")


def test_best_constants_are_those_of_scikit_learn() -> None:
    gold = [1, 1, 0, 1, 0]
    best = answers.best_constant([0, 1], lambda one: answers.constant_metric("f1", gold, one))
    assert best == (1, pytest.approx(f1_score(gold, [1] * 5)))
    assert answers.constant_metric("f1", gold, 0) == f1_score(gold, [0] * 5, zero_division=0)
    assert answers.best_constant(
        gold, lambda one: answers.constant_metric("accuracy", gold, one)
    ) == (1, pytest.approx(0.6))
    assert answers.constant_metric("matthews", gold, 1) == 0


def test_brier_and_calibration() -> None:
    chances, gold = [[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]], [0, 1, 1]
    binary = brier_score_loss(gold, [one[1] for one in chances])
    assert answers.brier(chances, gold) == pytest.approx(2 * binary)
    # One item a bin: confidences .9, .7 and .6, the last one wrong.
    assert answers.calibration_error(chances, gold) == pytest.approx((0.1 + 0.3 + 0.6) / 3)
    assert answers.probabilities([math.log(3), 0.0]) == pytest.approx([0.75, 0.25])


def test_consistency_is_over_pairs_of_seeds_and_shared_items() -> None:
    seeds = [{"x": 1, "y": 0}, {"x": 1, "y": 1}, {"z": 1}]
    assert answers.consistency(seeds) == 0.5
    assert math.isnan(answers.consistency(seeds[:1]))
    assert answers.distinct(["a", None, "b", "a"]) == 2


def test_a_difference_says_what_it_could_have_shown() -> None:
    rows = World(seeds=3).draw(np.random.default_rng(7))
    found = compare(rows, [(f"row{n}", "row0") for n in range(1, 8)])
    one: Difference = found[0]
    low, high = one.interval
    assert low < one.effect < high
    assert one.comparisons == 7
    assert one.smallest > smallest_difference(one.error)
