"""Train, validation and test by a stable hash of an item's group.

A hash of the row alone would leak: WinoGrande's sentences come in twins with opposite answers, and
many BoolQ questions share a passage. Whole groups fall on one side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")

SPLIT_VERSION = 1
"""Raised whenever the same group would fall elsewhere; enters every run's hash."""


@dataclass(frozen=True)
class Fractions:
    """How much of the groups goes to train and to validation; the rest is test."""

    train: float
    validation: float

    def __post_init__(self) -> None:
        if self.train < 0 or self.validation < 0 or self.train + self.validation > 1:
            raise ValueError(
                f"train {self.train} and validation {self.validation} must each be at least 0, and "
                "together at most 1"
            )


def position(group: str) -> float:
    """A number in [0, 1) that depends on the group's text and the split version alone."""
    digest = hashlib.sha256(f"{SPLIT_VERSION}\x1f{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_by_group(
    items: Iterable[T],
    group: Callable[[T], str],
    split: Literal["train", "validation", "test"],
    fractions: Fractions,
) -> list[T]:
    """The items whose group falls into a split, in their original order."""
    low, high = {
        "train": (0.0, fractions.train),
        "validation": (fractions.train, fractions.train + fractions.validation),
        "test": (fractions.train + fractions.validation, 1.0),
    }[split]
    return [item for item in items if low <= position(group(item)) < high]
