"""A figure as data: its numbers and its plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quanta_bench.report.screen_notes import Notes

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


@dataclass(frozen=True)
class Picture:
    """A plot with its numbers and the stem of its file names."""

    name: str
    figure: Figure
    numbers: Numbers


@dataclass(frozen=True)
class Drawn:
    """A finished figure.

    Attributes:
        title: the figure's title.
        pictures: its plots, the main one first.
        shown: a summary of the numbers, for the screen.
        notes: sentences by heading.
    """

    title: str
    pictures: Sequence[Picture]
    shown: Numbers
    notes: Notes
