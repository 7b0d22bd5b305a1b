"""From results to a metric against trainable parameters: a curve a method, lines for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quanta_bench.errors import BenchError
from quanta_bench.plugins import METHODS
from quanta_bench.report import plots
from quanta_bench.report.figure import Drawn, Numbers, Picture
from quanta_bench.report.plots import Curve, Level, Point
from quanta_bench.report.screen_notes import SCORES
from quanta_bench.report.table import TableRow, Value
from quanta_bench.report.tables import make_table
from quanta_bench.results.store import Store
from quanta_bench.runs.cells import Cells
from quanta_bench.suites.request import Request

DEVIATION = "standard deviation over seeds"
ITEMS = "standard error over items"

HEADER = (
    "curve",
    "row",
    "method",
    "model",
    "line",
    "trainable_parameters",
    "mean",
    "deviation_over_seeds",
    "standard_error_over_items",
    "error_bar",
    "seeds",
)


@dataclass(frozen=True)
class Place:
    """One row of the results in the picture.

    Attributes:
        curve: the curve that it belongs to: its method, and its model where there are several.
        line: whether it is a line over the whole width.
        row: the row as in a table.
        value: its number, in percent for fractions.
    """

    curve: str
    line: bool
    row: TableRow
    value: Value

    @property
    def error(self) -> float | None:
        """The error bar: over seeds where there are several, else over items."""
        several = self.value.deviation is not None
        return self.value.deviation if several else self.value.standard_error


def draw(request: Request, cells: Sequence[Cells], store: Store) -> Drawn:
    """The curves of a suite's first task, from whatever results are there.

    A row that the suite marks as a line, or that trains nothing and so has no place on a
    logarithmic axis, is a line.

    Raises:
        BenchError: no row has a result.
    """
    task = request.suite.tasks[0]
    table = make_table(request, cells, store)
    several = len({row.model for row in table.rows if row.method}) > 1
    places = []
    # The chance level, where a task has one, stands before the rows.
    for cell, row in zip(cells, table.rows[-len(cells) :], strict=True):
        if task not in row.cells or row.trainable is None:
            continue
        name = METHODS.get(row.method).title + (f", {row.model}" if several else "")
        line = cell.row.spec.line or not row.trainable
        places.append(Place(name, line, row, row.cells[task]))
    if not places:
        raise BenchError(f"{request.suite.name}: no run has a result, so there is nothing to draw.")
    first = next(result for cell in cells for result in cell.everything())
    metric = first.tasks[task].metric
    kind = first.tasks[task].kind
    unit = "" if kind == "perplexity" else " (%)"
    shown = metric.upper() if len(metric) < 3 else metric
    curves = [
        Curve(name, tuple(map(_point, members)))
        for name, members in _grouped([place for place in places if not place.line]).items()
    ]
    levels = [
        Level(place.row.label, place.value.mean, place.error) for place in places if place.line
    ]
    bars = caption(places, first.tasks[task].items)
    figure = plots.against_parameters(
        curves,
        levels,
        metric=f"{first.tasks[task].title}, {shown}{unit}",
        caption=bars,
        title=table.title if several else f"{table.title}\n{first.training.model}",
    )
    numbers = Numbers(HEADER, [_record(place) for place in places])
    short = ("row", "line", "trainable_parameters", "mean", "error_bar", "seeds")
    kept = [HEADER.index(name) for name in short]
    return Drawn(
        table.title,
        [Picture(table.name, figure, numbers)],
        Numbers(short, [tuple(row[at] for at in kept) for row in numbers.rows]),
        {
            **table.notes,
            SCORES: [f"{bars[0].upper()}{bars[1:]}.", *table.notes[SCORES]],
        },
    )


def caption(places: Sequence[Place], items: int) -> str:
    """What the error bars of these rows are, and of how many seeds and items."""
    counts = sorted({len(place.value.seeds) for place in places})
    seeds = " or ".join(map(str, counts)) + (" seed" if counts == [1] else " seeds")
    size = f"{seeds} a row, {items:,} test items"
    kinds = {ITEMS if place.value.deviation is None else DEVIATION for place in places}
    if len(kinds) == 1:
        return f"{size}; bars and ±: {kinds.pop()}"
    return f"{size}; bars and ±: {DEVIATION}, of one seed {ITEMS}"


def _grouped(places: Sequence[Place]) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {}
    for place in places:
        found.setdefault(place.curve, []).append(place)
    return found


def _point(place: Place) -> Point:
    return Point(place.row.label, place.row.trainable or 0, place.value.mean, place.error)


def _record(place: Place) -> tuple[str | int | float | bool | None, ...]:
    row, value = place.row, place.value
    return (
        place.curve,
        row.label,
        row.method,
        row.model,
        place.line,
        row.trainable,
        value.mean,
        value.deviation,
        value.standard_error,
        place.error,
        " ".join(map(str, value.seeds)),
    )
