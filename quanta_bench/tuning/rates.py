"""Learning rates half a decade apart: 1e-4, 3e-4, 1e-3, ..."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from quanta_bench.errors import UsageError

FIRST = 5
"""Rates that a row is tried at, at least, before its range grows."""

MOST = 9
"""Rates that a row is tried at, at most, unless the user says otherwise."""

LOWEST, HIGHEST = 1e-30, 1e30
"""Range of rates that a search knows."""

ROUNDED = 10**0.25
"""A declared range is covered once the grid ends less than a quarter of a decade short of it."""


def shifted(rate: float, steps: int) -> float:
    """A rate moved by half decades.

    A rate of 1 or 3 times a power of ten moves along these; others are multiplied by the square
    root of ten and rounded to two digits.
    """
    mantissa, _, exponent = f"{rate:.1e}".partition("e")
    if mantissa in ("1.0", "3.0") and math.isclose(rate, float(f"{mantissa}e{exponent}")):
        place = 2 * int(exponent) + (mantissa == "3.0") + steps
        return float(f"{3 if place % 2 else 1}e{place // 2}")
    return float(f"{rate * 10 ** (steps / 2):.1e}")


def first_rates(present: float, declared: Sequence[float] = (), most: int = MOST) -> list[float]:
    """The rates that a row is tried at first, in ascending order, its present one among them.

    Args:
        present: the row's present rate; as many lie below it as above, at least.
        declared: rates that the method's class declares for a search; their range is covered.
        most: the largest number of rates.
    """
    count = min(FIRST, most)
    low, high = -((count - 1) // 2), count // 2
    while declared and high - low + 1 < most:
        if min(declared) * ROUNDED < shifted(present, low):
            low -= 1
        elif max(declared) > shifted(present, high) * ROUNDED:
            high += 1
        else:
            break
    return [shifted(present, steps) if steps else present for steps in range(low, high + 1)]


def parse_rates(text: str) -> tuple[float, ...]:
    """The rates of a list such as ``1e-4,3e-4,1e-3``; none of an empty text.

    Raises:
        UsageError: there are fewer than two, or one is no positive number, or they do not ascend.
    """
    if not text.strip():
        return ()
    words = [word.strip() for word in text.split(",")]
    try:
        rates = tuple(float(word) for word in words)
    except ValueError:
        raise UsageError(
            f"--rates {text}: write learning rates separated by commas, such as 1e-4,3e-4,1e-3."
        ) from None
    for word, rate in zip(words, rates, strict=True):
        if not LOWEST <= rate <= HIGHEST:
            raise UsageError(
                f"--rates {text}: {word} is no learning rate from {LOWEST:g} to {HIGHEST:g}."
            )
    if len(rates) < 2:
        raise UsageError(f"--rates {text}: there is nothing to compare; give at least two.")
    for before, after in pairwise(words):
        if float(before) == float(after):
            raise UsageError(f"--rates {text}: {after} is given twice.")
        if float(before) > float(after):
            raise UsageError(f"--rates {text}: {after} follows {before}; write the smallest first.")
    return rates


def short(rate: float) -> str:
    """A rate as tables show it: ``3e-4``."""
    mantissa, _, exponent = f"{rate:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"
