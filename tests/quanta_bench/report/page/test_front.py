"""The Pareto front, against its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quanta_bench.report.page.front import pareto_front

# Few values, so that many are equal.
NUMBERS = st.none() | st.integers(0, 6).map(float)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12)


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether a point, of two costs, is as low in both as another and lower in one."""
    return one[0] <= other[0] and one[1] <= other[1] and one != other


@given(POINTS, st.booleans())
def test_the_front_holds_what_nothing_beats(
    points: list[tuple[float | None, float | None]], lower: bool
) -> None:
    costs, scores = [cost for cost, _ in points], [score for _, score in points]
    known = {
        number: (cost, score if lower else -score)
        for number, (cost, score) in enumerate(points)
        if cost is not None and score is not None
    }
    expected = {
        number
        for number, point in known.items()
        if not any(beats(other, point) for other in known.values())
    }
    front = pareto_front(costs, scores, lower=lower)
    assert set(front) == expected
    assert len(front) == len(expected)
    assert [known[number][0] for number in front] == sorted(known[n][0] for n in front)
