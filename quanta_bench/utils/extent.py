"""What benchmarks, checks and experiments share of their conditions: how much to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Extent:
    """How much to do.

    Attributes:
        quick: fewer cases, points, rounds or items: seconds rather than minutes.
    """

    quick: bool = False

    def choose(self, full: T, quick: T) -> T:
        """``quick`` if these conditions are quick, else ``full``."""
        return quick if self.quick else full


def say_nothing(text: str) -> None:
    """Discard a line of progress."""
