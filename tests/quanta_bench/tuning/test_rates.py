"""Learning rates half a decade apart."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quanta_bench.errors import UsageError
from quanta_bench.plugins import METHODS
from quanta_bench.tuning.rates import first_rates, parse_rates, shifted, short

HALF_A_DECADE = math.sqrt(10)


@given(st.floats(1e-8, 10), st.integers(-6, 6))
def test_a_rate_moves_by_half_decades(rate: float, steps: int) -> None:
    # Two digits, and 3 for the square root of ten.
    assert shifted(rate, steps) == pytest.approx(rate * HALF_A_DECADE**steps, rel=0.06)


def test_the_usual_rates_are_round() -> None:
    assert [shifted(1e-3, steps) for steps in range(-3, 3)] == [3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
    assert [shifted(3e-4, steps) for steps in (-1, 1)] == [1e-4, 1e-3]
    assert shifted(6e-5, 2) == 6e-4


def test_five_rates_around_the_present_one() -> None:
    assert first_rates(1e-3) == [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
    assert first_rates(1e-3, most=3) == [3e-4, 1e-3, 3e-3]


def test_what_a_class_declares_is_covered_within_the_bound() -> None:
    assert first_rates(1e-3, (3e-5, 1e-3)) == [3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
    assert len(first_rates(1e-3, (1e-9, 1.0), most=7)) == 7


def test_every_methods_default_row_is_surrounded_and_its_search_covered() -> None:
    methods, _ = METHODS.usable()
    rows = [(m, row) for m in methods.values() if m.trains for row in m.rows.values()]
    assert len(rows) > 10
    for method, row in rows:
        if "learning_rate" not in row.training:
            continue
        present = row.training["learning_rate"]
        declared = method.search.get("learning_rate", ())
        rates = first_rates(present, declared)
        assert 5 <= len(rates) <= 9
        assert sum(rate < present for rate in rates) >= 2
        assert sum(rate > present for rate in rates) >= 2
        for before, after in pairwise(rates):
            assert after / before == pytest.approx(HALF_A_DECADE, rel=0.06)
        if declared and len(rates) < 9:
            assert min(rates) <= min(declared) * 1.8
            assert max(rates) >= max(declared) / 1.8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1e-3", "at least two"),
        ("1e-3,0", "0 is no learning rate"),
        ("-1e-3,1e-3", "-1e-3 is no learning rate"),
        ("1e-3,inf", "inf is no learning rate"),
        ("nan,1", "nan is no learning rate"),
        ("1e-3,1e-4", "1e-4 follows 1e-3; write the smallest first"),
        ("1e-3,0.001", "0.001 is given twice"),
        ("1e-3,,1e-2", "separated by commas"),
        ("fast,slow", "separated by commas"),
    ],
)
def test_other_rates_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match="--rates") as refused:
        parse_rates(text)
    assert said in str(refused.value)


def test_rates_are_read_and_shown() -> None:
    assert parse_rates(" 1e-4, 0.0003 ") == (1e-4, 3e-4)
    assert parse_rates("") == ()
    assert [short(rate) for rate in (3e-4, 1.9e-5, 0.1, 1.0)] == ["3e-4", "1.9e-5", "1e-1", "1e0"]
