"""Draw, write and show a figure: plots with their numbers, a short table, and notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from quanta_bench.report import plots, sections
from quanta_bench.report.figure import Drawn, Number
from quanta_bench.report.overwriting import free_name
from quanta_bench.report.sections import Column, Section
from quanta_bench.results.store import Store
from quanta_bench.runs.cells import Cells
from quanta_bench.suites.request import Request
from quanta_bench.utils.escaping import csv_text


def narrow(request: Request) -> Request:
    """Restrict a request to the rows that its figure shows.

    Raises:
        UsageError: the figure shows none of the selected rows, or names a row or module that does
            not exist.
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
        request: the user's request, before :func:`narrow`.
        cells: the results of the rows shown.
        store: where the results are stored.

    Raises:
        BenchError: there is nothing to draw.
    """
    from quanta_bench.report import parameter_curves, subspace_figure

    if request.suite.figure and request.suite.figure.kind == "similarity":
        return subspace_figure.draw(request, cells, store)
    return parameter_curves.draw(request, cells, store)


def write(drawn: Drawn, folder: Path) -> list[Path]:
    """Write every plot as PNG and SVG, its numbers as CSV, and the notes; returns the files.

    Files of an earlier plot with more numbers are kept; see
    :func:`quanta_bench.report.overwriting.free_name`.
    """
    paths = []
    names = []
    for picture in drawn.pictures:
        numbers = csv_text(picture.numbers.header, picture.numbers.rows)
        names.append(free_name(folder, picture.name, numbers))
        paths += plots.save(picture.figure, folder, names[-1])
        paths += sections.write(folder, names[-1], {"csv": numbers})
    markdown = sections.as_markdown(drawn.title, [_section(drawn)], drawn.notes)
    return paths + sections.write(folder, names[0], {"md": markdown})


def as_data(drawn: Drawn, paths: Sequence[Path]) -> dict[str, Any]:
    """The figure's numbers, for JSON."""
    return {
        "title": drawn.title,
        "shown": drawn.shown.records(),
        "pictures": {picture.name: picture.numbers.records() for picture in drawn.pictures},
        "notes": {heading: list(texts) for heading, texts in drawn.notes.items()},
        "files": [str(path) for path in paths],
    }


def on_screen(drawn: Drawn) -> RenderableType:
    """The short table and the notes, for the terminal."""
    return sections.on_screen([_section(drawn)], drawn.notes, f"{drawn.pictures[0].name}.md")


def _section(drawn: Drawn) -> Section[tuple[Number, ...]]:
    """The short table: text left-aligned, numbers right-aligned."""
    rows = drawn.shown.rows
    texts = [any(isinstance(row[index], str) for row in rows) for index in range(len(rows[0]))]
    # The leading text columns label the row.
    labels = sum(1 for _ in takewhile(bool, texts))

    def text_at(index: int) -> Callable[[tuple[Number, ...]], str]:
        return lambda row: _text(row[index])

    columns = [
        Column(
            heading.replace("_", " "),
            text_at(index),
            right=not texts[index],
            label=index < labels,
        )
        for index, heading in enumerate(drawn.shown.header)
    ]
    return Section(drawn.title, columns, rows)


def _text(value: Number) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else value
