"""A figure as a command makes it: pictures with their numbers, a short table, and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quanta_bench.report import plots as figures
from quanta_bench.results.store import Store
from quanta_bench.runs.sweep import Cells
from quanta_bench.suites.request import Request

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


def narrow(request: Request) -> Request:
    """A request of only those rows that its figure shows.

    Raises:
        UsageError: it shows none of those that are selected, or names a row or a module that is not
            there.
    """
    if request.suite.figure and request.suite.figure.kind == "similarity":
        from quanta_bench.report import subspace_figure as similarities

        chosen = similarities.choose(request)
        similarities.check_modules(request, chosen)
        rows = [row for row in request.grid if row.spec.label in chosen.labels]
        return replace(request, grid=rows)
    return request


def draw(request: Request, cells: Sequence[Cells], store: Store) -> Drawn:
    """Draw a figure from its results.

    Args:
        request: what the user asked for, before it was narrowed.
        cells: the results of the rows that are shown.
        store: where they lie.

    Raises:
        BenchError: there is nothing to draw.
    """
    from quanta_bench.report import parameter_curves as curves
    from quanta_bench.report import subspace_figure as similarities

    if request.suite.figure and request.suite.figure.kind == "similarity":
        return similarities.draw(request, cells, store)
    return curves.draw(request, cells, store)


def write(drawn: Drawn, folder: Path) -> list[Path]:
    """Write every picture as PNG and SVG and its numbers as CSV; returns the files."""
    paths = []
    for picture in drawn.pictures:
        paths += figures.save(picture.figure, folder, picture.name)
        path = folder / f"{picture.name}.csv"
        paths.append(figures.write_csv(path, picture.numbers.header, picture.numbers.rows))
    return paths


def as_data(drawn: Drawn, paths: Sequence[Path]) -> dict[str, Any]:
    """The figure's numbers for programs."""
    return {
        "title": drawn.title,
        "shown": drawn.shown.records(),
        "pictures": {picture.name: picture.numbers.records() for picture in drawn.pictures},
        "notes": list(drawn.notes),
        "files": [str(path) for path in paths],
    }


def on_screen(drawn: Drawn) -> RenderableType:
    """The short table and the notes as Rich draws them."""
    grid = Table(title=Text(drawn.title, style="bold"), title_justify="left")
    for number, heading in enumerate(drawn.shown.header):
        words = any(isinstance(row[number], str) for row in drawn.shown.rows)
        grid.add_column(heading.replace("_", " "), justify="left" if words else "right")
    for row in drawn.shown.rows:
        grid.add_row(*(Text(_text(value)) for value in row))
    return Group(grid, *(Text(f"· {note}", style="dim") for note in drawn.notes))


def _text(value: Number) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else value
