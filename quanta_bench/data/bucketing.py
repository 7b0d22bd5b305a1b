"""Group items into batches: items of like length, within a budget of tokens."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from quanta_bench.task import Example


class Item(Protocol):
    """An item in token ids, under any protocol."""

    @property
    def example(self) -> Example:
        """The item itself."""

    @property
    def task(self) -> int:
        """Position of its task in the list that is being run."""

    @property
    def cut(self) -> int:
        """Number of tokens that were cut."""

    def cost(self, packed: bool) -> int:
        """Tokens that the item puts into a batch."""


T = TypeVar("T", bound=Item)

BATCH_CHARGE = 1 / 16
"""Fixed cost of a batch, as a fraction of the token budget: reading weights, and Python.

On two cores in bfloat16, a matrix product of 80 tokens takes as long as 96 do in one of 512, and
Python adds to that; at a budget of 512 the charge is 32.
"""


def by_tokens(
    items: Sequence[T], budget: int, *, packed: bool, most: int | None = None
) -> list[list[T]]:
    """Batches of items of similar length, cut by :func:`cheapest_cuts`.

    Args:
        items: the items.
        budget: bound on a batch's tokens, padding counted; a single item over it makes a batch of
            its own.
        packed: whether an item's candidates share a row.
        most: bound on a batch's items.
    """
    ordered = sorted(items, key=lambda item: (-item.cost(packed), item.task, item.example.id))
    widths = [item.cost(packed) for item in ordered]
    return [ordered[cut] for cut in cuts_within(widths, budget, most=most)]


def cuts_within(
    widths: Sequence[int],
    budget: int,
    *,
    most: int | None = None,
    rows: Sequence[int] | None = None,
) -> list[slice]:
    """:func:`cheapest_cuts` within a budget of tokens, of which each batch costs a part."""
    charge = budget * BATCH_CHARGE
    return cheapest_cuts(widths, charge=charge, budget=budget, most=most, rows=rows)


def cheapest_cuts(
    widths: Sequence[int],
    *,
    charge: float,
    budget: float = math.inf,
    most: int | None = None,
    rows: Sequence[int] | None = None,
) -> list[slice]:
    """Where to cut rows, sorted by width, into batches so that all cost the least.

    A batch costs its rows times its widest, padding included, and a charge: many batches pad
    little, few are charged little.

    Args:
        widths: of the rows, in tokens, the widest first.
        charge: fixed cost of a batch, in tokens.
        budget: bound on a batch's tokens, padding counted; a row over it is a batch of its own.
        most: bound on a batch's rows.
        rows: how many rows each width stands for, which stay together; one by default.

    Returns:
        The batches, in order.
    """
    width = np.array(widths, dtype=np.int64)
    # before[i] rows stand before the i-th width.
    before = np.concatenate([[0], np.cumsum([1] * len(width) if rows is None else rows)])
    # least[i] is the cost of the first i rows; the last batch among them starts at begins[i].
    least = np.zeros(len(width) + 1)
    begins = np.zeros(len(width) + 1, dtype=np.int64)
    first = 0
    for end in range(1, len(width) + 1):
        # Widths only fall, so what is too early a start for one end is so for all later ones.
        while first < end - 1 and (
            width[first] * (before[end] - before[first]) > budget
            or (most is not None and before[end] - before[first] > most)
        ):
            first += 1
        starts = np.arange(first, end)
        costs = least[starts] + width[starts] * (before[end] - before[starts]) + charge
        best = int(costs.argmin())
        least[end], begins[end] = costs[best], starts[best]
    cuts: list[slice] = []
    end = len(width)
    while end:
        cuts.append(slice(int(begins[end]), end))
        end = cuts[-1].start
    return cuts[::-1]


def shuffled(
    items: Sequence[T], batch_size: int, *, seed: int, epoch: int, packed: bool
) -> list[list[T]]:
    """Training batches of one epoch: random, yet of similar length within a batch.

    Items are shuffled, cut into blocks of sixteen batches and sorted by length within a block, so
    little is padded and the batches of an epoch still differ from those of the next. The last
    batch may be smaller. Depends on ``seed`` and ``epoch`` alone.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(items)
    rng.shuffle(order)
    block = batch_size * 16
    batches: list[list[T]] = []
    for start in range(0, len(order), block):
        near = sorted(order[start : start + block], key=lambda item: item.cost(packed))
        batches += [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
    rng.shuffle(batches)
    return batches
