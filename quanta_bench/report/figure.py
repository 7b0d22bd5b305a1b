"""A figure as data: the numbers drawn, and the pictures of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Number = str | int | float | bool | None


@dataclass(frozen=True)
class Numbers:
    """A table of numbers, the same in CSV, in JSON and on the screen."""

    header: tuple[str, ...]
    rows: list[tuple[Number, ...]]

    def records(self) -> list[dict[str, Number]]:
        """The rows as data."""
        return [dict(zip(self.header, row, strict=True)) for row in self.rows]

    def as_csv(self) -> str:
        """The rows as CSV; empty where a number is unknown."""
        # As objects: a column of integers with a gap would otherwise be written as floats.
        made = pd.DataFrame(self.rows, columns=list(self.header), dtype=object)
        text: str = made.to_csv(index=False, lineterminator="\n")
        return text


@dataclass(frozen=True)
class Picture:
    """A picture, the numbers that it shows, and what its files are called."""

    name: str
    figure: Figure
    numbers: Numbers


@dataclass(frozen=True)
class Drawn:
    """A finished figure.

    Attributes:
        title: of the whole.
        pictures: its pictures, the main one first.
        shown: the numbers in short, for the screen.
        notes: what a reader has to know.
    """

    title: str
    pictures: Sequence[Picture]
    shown: Numbers
    notes: Sequence[str]
