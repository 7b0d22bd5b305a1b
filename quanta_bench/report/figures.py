"""A figure as a command makes it: pictures with their numbers, a short table, and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quanta_bench.report import plots
from quanta_bench.report.figure import Drawn, Number
from quanta_bench.report.overwriting import free_name
from quanta_bench.results.store import Store
from quanta_bench.runs.cells import Cells
from quanta_bench.suites.request import Request

if TYPE_CHECKING:
    pass


def narrow(request: Request) -> Request:
    """A request of only those rows that its figure shows.

    Raises:
        UsageError: it shows none of those that are selected, or names a row or a module that is not
            there.
    """
    if request.suite.figure and request.suite.figure.kind == "similarity":
        from quanta_bench.report import subspace_figure

        chosen = subspace_figure.choose(request)
        subspace_figure.check_modules(request, chosen)
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
    from quanta_bench.report import parameter_curves, subspace_figure

    if request.suite.figure and request.suite.figure.kind == "similarity":
        return subspace_figure.draw(request, cells, store)
    return parameter_curves.draw(request, cells, store)


def write(drawn: Drawn, folder: Path) -> list[Path]:
    """Write every picture as PNG and SVG and its numbers as CSV; returns the files.

    Files of an earlier picture that has more numbers are kept, as of tables.
    """
    paths = []
    for picture in drawn.pictures:
        text = picture.numbers.as_csv()
        name = free_name(folder, picture.name, text)
        paths += plots.save(picture.figure, folder, name)
        path = folder / f"{name}.csv"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
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
