# Copyright 2026-present the HuggingFace Inc. team.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Default axis sizes for a hidden size.

The width is split into 3, 4 or 5 axes, as in the paper (two axes would be a full matrix). The rule
chooses the fewest axes whose largest size is at most twice the smallest; failing that, the fewest
whose largest size is at most four times the smallest; and among splits with the same number of axes
the most balanced one. Sizes are in descending order. So 576 is 9-8-8 (14,464 parameters), 4096 is
16-16-16 (196,608) and 768 is 12-8-8. A parameter budget first excludes all splits above it: 4096
within 50,000 parameters is 8-8-8-8 (24,576), 576 within 10,000 is 6-6-4-4.
"""

import itertools
import math
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Literal

from .circuit import Circuit, WeightCircuit


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


@lru_cache(maxsize=1024)
def fit_circuit(
    in_features: int,
    out_features: int,
    dims: tuple[int, ...] | None,
    rectangular: Literal["gate", "pad"],
    budget: int | None,
    name: str,
) -> WeightCircuit:
    """Plan the all-pairs circuit of one layer.

    Args:
        in_features: The layer's input width.
        out_features: The layer's output width.
        dims: Axis sizes, or `None` to choose them.
        rectangular: The construction, see above.
        budget: Maximum number of parameters, if sizes are chosen.
        name: The module's name, for messages.

    Raises:
        ValueError: The sizes do not fit the layer. The message names the module, its widths, and
            what would fit.
    """
    if rectangular == "pad":
        if dims is None:
            # Any product works, so a narrow width without a good split is rounded up.
            narrow = min(in_features, out_features)
            dims = choose_dims(next(filter(can_split, itertools.count(narrow))), budget=budget)
        return WeightCircuit(in_features, out_features, dims, Circuit.all_pairs(dims))

    wide, narrow = max(in_features, out_features), min(in_features, out_features)
    layer = f"module {name!r} ({in_features} -> {out_features})"
    if wide % narrow:
        raise ValueError(
            f"{layer}: neither width is a multiple of the other, so no rectangular gate joins "
            'them; pass rectangular="pad" to pad and cut instead'
        )
    factor = wide // narrow
    if dims is None:
        try:
            dims = choose_dims(wide, budget=budget, divisor=factor)
        except ValueError as error:
            raise ValueError(f"{layer}: {error}") from error
    if math.prod(dims) != wide:
        raise ValueError(
            f"{layer}: dims {dims} multiply to {math.prod(dims)}, not to its width {wide}; "
            f"nearest dims: {_nearest_dims(dims, wide, factor)}. Or pass "
            'rectangular="pad" to pad and cut to the product'
        )
    if dims[0] % factor:
        raise ValueError(
            f"{layer}: the first of dims {dims} is not a multiple of {factor}, by which the layer "
            f"{'shrinks' if in_features > out_features else 'grows'}; nearest dims: "
            f'{_nearest_dims(dims, wide, factor)}. Or pass rectangular="pad"'
        )
    first = dims[0] // factor
    circuit = Circuit.all_pairs(
        dims,
        first_in=first if in_features < out_features else None,
        first_out=first if in_features > out_features else None,
    )
    return WeightCircuit(in_features, out_features, dims, circuit)


def _nearest_dims(dims: tuple[int, ...], width: int, factor: int) -> str:
    """Up to three splits of ``width`` into as many axes, nearest to ``dims`` on a log scale."""

    def distance(candidate: tuple[int, ...]) -> float:
        pairs = zip(candidate, dims, strict=True)
        return sum(abs(math.log(size / wanted)) for size, wanted in pairs)

    fitting = [split for split in _ordered_splits(width, len(dims)) if split[0] % factor == 0]
    if not fitting:
        return f"none with {len(dims)} axes"
    best = sorted(fitting, key=lambda split: (distance(split), split))[:3]
    return " or ".join("-".join(map(str, split)) for split in best)


def _ordered_splits(width: int, count: int) -> list[tuple[int, ...]]:
    if count == 1:
        return [(width,)] if width > 1 else []
    return [
        (size, *rest)
        for size in range(2, width // 2 + 1)
        if width % size == 0
        for rest in _ordered_splits(width // size, count - 1)
    ]


def check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"QuantaConfig: dims pattern {pattern!r}: {error}") from error
    return pattern


def check_dims(what: str, dims: Any) -> tuple[int, ...] | None:
    if dims is None:
        return None
    if isinstance(dims, str) or not isinstance(dims, Iterable):
        raise ValueError(f"QuantaConfig: {what}={dims!r}; give the axis sizes as in (16, 8, 8, 4), or None")
    sizes = tuple(dims)
    if len(sizes) < 2:
        raise ValueError(
            f"QuantaConfig: {what}={sizes} has {len(sizes)} axes; a gate acts on two, so give at least two sizes"
        )
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 2:
            raise ValueError(f"QuantaConfig: {what}={sizes} has {size!r}; a size is at least 2")
    return sizes
