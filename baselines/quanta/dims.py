"""Default axis sizes for a hidden size.

The width is split into 3, 4 or 5 axes, as in the paper (two axes would be a full matrix). The rule
chooses the fewest axes whose largest size is at most twice the smallest; failing that, the fewest
whose largest size is at most four times the smallest; and among splits with the same number of axes
the most balanced one. Sizes are in descending order. So 576 is 9-8-8 (14,464 parameters), 4096 is
16-16-16 (196,608) and 768 is 12-8-8. A parameter budget first excludes all splits above it: 4096
within 50,000 parameters is 8-8-8-8 (24,576), 576 within 10,000 is 6-6-4-4.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache

MIN_AXES, MAX_AXES = 3, 5
EVEN, UNEVEN = 2, 4  # ratio of largest to smallest size: preferred, accepted


def choose_dims(width: int, *, budget: int | None = None, divisor: int = 1) -> tuple[int, ...]:
    """Choose axis sizes whose product is ``width``, by the rule above.

    Args:
        width: Hidden size to split.
        budget: Maximum number of parameters of an all-pairs circuit on these axes.
        divisor: The first axis must be a multiple of it, as required by the rectangular gate of a
            layer that shrinks or grows by that factor (App. B). Other sizes keep their order.

    Raises:
        ValueError: ``width`` has no such split; the message gives the nearest widths that have
            one. Or no split is within the budget; the message gives the smallest.
    """
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise ValueError(f"choose_dims: width is a positive integer, got {width!r}")
    if budget is not None and budget < 1:
        raise ValueError(f"choose_dims: budget is a positive number of parameters, got {budget!r}")
    splits = [dims for split in _splits(width) if (dims := _lead(split, divisor)) is not None]
    if not splits:
        what = f"{width} has no even split into {MIN_AXES} to {MAX_AXES} axes"
        if divisor > 1:
            what += f" with an axis that is a multiple of {divisor}"
        raise ValueError(
            f"choose_dims: {what} (no axis more than {UNEVEN} times another); nearest widths that "
            f"have one: {nearest_text(width, divisor)}. Give dims yourself, or round the width "
            'with rectangular="pad"'
        )
    if budget is not None:
        affordable = [dims for dims in splits if all_pairs_parameters(dims) <= budget]
        if not affordable:
            least = min(splits, key=all_pairs_parameters)
            raise ValueError(
                f"choose_dims: no split of {width} fits a budget of {budget:,} parameters; the "
                f"smallest is {_dashed(least)} with {all_pairs_parameters(least):,}"
            )
        splits = affordable
    return min(splits, key=lambda dims: (_ratio(dims) > EVEN, len(dims), _ratio(dims), dims))


def can_split(width: int, divisor: int = 1) -> bool:
    """Whether `choose_dims` has a split for this width."""
    return any(_lead(dims, divisor) is not None for dims in _splits(width))


def all_pairs_parameters(dims: tuple[int, ...]) -> int:
    """Parameters of the square all-pairs circuit: the sum of ``(d_m d_n)^2`` over pairs."""
    return sum((m * n) ** 2 for m, n in itertools.combinations(dims, 2))


def nearest_text(width: int, divisor: int = 1) -> str:
    """The nearest widths below and above that `choose_dims` can split, with their splits."""
    widths = []
    for candidates in (range(width - 1, 0, -1), range(width + 1, 4 * width + 9)):
        for candidate in candidates:
            if can_split(candidate, divisor):
                dims = choose_dims(candidate, divisor=divisor)
                widths.append(f"{candidate} ({_dashed(dims)})")
                break
    return " and ".join(widths) or "none near"


def _dashed(dims: tuple[int, ...]) -> str:
    return "-".join(map(str, dims))


def _ratio(dims: tuple[int, ...]) -> float:
    return max(dims) / min(dims)


def _lead(dims: tuple[int, ...], divisor: int) -> tuple[int, ...] | None:
    """The sizes with the largest multiple of ``divisor`` first; `None` if there is none."""
    for index, size in enumerate(dims):
        if size % divisor == 0:
            return (size, *dims[:index], *dims[index + 1 :])
    return None


@lru_cache(maxsize=4096)
def _splits(width: int) -> tuple[tuple[int, ...], ...]:
    """All accepted splits, each in descending order."""
    return tuple(
        dims
        for count in range(MIN_AXES, MAX_AXES + 1)
        for dims in _factorisations(width, count, width)
        if _ratio(dims) <= UNEVEN
    )


def _factorisations(width: int, count: int, most: int) -> Iterator[tuple[int, ...]]:
    """Descending tuples of ``count`` sizes from 2 to ``most`` with product ``width``."""
    if count == 1:
        if 2 <= width <= most:
            yield (width,)
        return
    # The first size is the largest, so at least the count-th root, and each size after it is at
    # least 2.
    least = max(2, math.ceil(width ** (1 / count) - 1e-9))
    largest = min(most, width // 2 ** (count - 1))
    for size in range(least, largest + 1):
        if width % size == 0:
            for rest in _factorisations(width // size, count - 1, size):
                yield (size, *rest)
