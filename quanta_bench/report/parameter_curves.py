"""Plot a metric against trainable parameters: one curve per method, lines for other rows."""

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

BOTH = "95 % interval of seeds and items"
ITEMS = "95 % interval of items alone"

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
class PlottedRow:
    """A row of results in the plot.

    Attributes:
        curve: its curve: the method, and the model if there are several.
        line: whether it is drawn as a horizontal line across the plot.
        row: the table row.
        value: its value, in percent for fractions.
    """

    curve: str
    line: bool
    row: TableRow
    value: Value

    @property
    def error(self) -> float | None:
        """The error bar: half of the 95 % interval, as in tables."""
        return self.value.margin


def draw(request: Request, cells: Sequence[Cells], store: Store) -> Drawn:
    """Plot the curves of a suite's first task from the results so far.

    A row is drawn as a line if the suite says so or if it trains nothing, because a logarithmic
    axis has no zero.

    Raises:
        BenchError: no row has a result.
    """
    task = request.suite.tasks[0]
    table = make_table(request, cells, store, marked=False)
    several = len({row.model for row in table.rows if row.method}) > 1
    plotted = []
    # The chance level, if the task has one, comes before the rows.
    for cell, row in zip(cells, table.rows[-len(cells) :], strict=True):
        if task not in row.cells or row.trainable is None:
            continue
        name = METHODS.get(row.method).title + (f", {row.model}" if several else "")
        line = cell.row.spec.line or not row.trainable
        plotted.append(PlottedRow(name, line, row, row.cells[task]))
    if not plotted:
        raise BenchError(f"{request.suite.name}: no run has a result, so there is nothing to draw.")
    first = next(result for cell in cells for result in cell.everything())
    metric = first.tasks[task].metric
    kind = first.tasks[task].kind
    unit = "" if kind == "perplexity" else " (%)"
    shown = metric.upper() if len(metric) < 3 else metric
    curves = [
        Curve(name, tuple(map(_point, members)))
        for name, members in _by_curve([entry for entry in plotted if not entry.line]).items()
    ]
    levels = [
        Level(entry.row.label, entry.value.mean, entry.error) for entry in plotted if entry.line
    ]
    bars = caption(plotted, first.tasks[task].items)
    figure = plots.against_parameters(
        curves,
        levels,
        metric=f"{first.tasks[task].title}, {shown}{unit}",
        caption=bars,
        title=table.title if several else f"{table.title}\n{first.training.model}",
    )
    numbers = Numbers(HEADER, [_record(entry) for entry in plotted])
    short = ("row", "line", "trainable_parameters", "mean", "error_bar", "seeds")
    indices = [HEADER.index(name) for name in short]
    return Drawn(
        table.title,
        [Picture(table.name, figure, numbers)],
        Numbers(short, [tuple(row[index] for index in indices) for row in numbers.rows]),
        {
            **table.notes,
            SCORES: [f"{bars[0].upper()}{bars[1:]}.", *table.notes[SCORES]],
        },
    )


def caption(plotted: Sequence[PlottedRow], items: int) -> str:
    """Describe the error bars of these rows and the number of seeds and items behind them."""
    counts = sorted({len(entry.value.seeds) for entry in plotted})
    seeds = " or ".join(map(str, counts)) + (" seed" if counts == [1] else " seeds")
    size = f"{seeds} a row, {items:,} test items"
    several = {len(entry.value.seeds) > 1 for entry in plotted}
    if len(several) == 1:
        return f"{size}; bars and ±: {BOTH if several.pop() else ITEMS}"
    return f"{size}; bars and ±: {BOTH}, of one seed {ITEMS}"


def _by_curve(plotted: Sequence[PlottedRow]) -> dict[str, list[PlottedRow]]:
    curves: dict[str, list[PlottedRow]] = {}
    for entry in plotted:
        curves.setdefault(entry.curve, []).append(entry)
    return curves


def _point(entry: PlottedRow) -> Point:
    return Point(entry.row.label, entry.row.trainable or 0, entry.value.mean, entry.error)


def _record(entry: PlottedRow) -> tuple[str | int | float | bool | None, ...]:
    row, value = entry.row, entry.value
    return (
        entry.curve,
        row.label,
        row.method,
        row.model,
        entry.line,
        row.trainable,
        value.mean,
        value.deviation,
        value.standard_error,
        entry.error,
        " ".join(map(str, value.seeds)),
    )
