"""The Pareto front of costs and scores."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(
    costs: Sequence[float | None], scores: Sequence[float | None], *, lower: bool = False
) -> list[int]:
    """The points that no other point is as good as in both, and better in one.

    Args:
        costs: the cost of each point, less is better; a point without one is on no front.
        scores: its score, likewise.
        lower: whether a lower score is better, as of a perplexity.

    Returns:
        The points' numbers by rising cost. Equal points are all on the front.
    """
    sign = 1 if lower else -1
    known = [
        (cost, sign * score, number)
        for number, (cost, score) in enumerate(zip(costs, scores, strict=True))
        if cost is not None and score is not None
    ]
    front: list[tuple[float, float, int]] = []
    # By rising cost, then the best first: a point is beaten by one that came before, or by none.
    for point in sorted(known):
        if not front or point[1] < front[-1][1] or point[:2] == front[-1][:2]:
            front.append(point)
    return [number for *_, number in front]
