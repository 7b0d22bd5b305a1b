"""A table on the screen and in files: Markdown, CSV, LaTeX, JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import RenderableType

from quanta_bench.report import grids, tables
from quanta_bench.report.grids import Part, Shown
from quanta_bench.report.table import Table, TableRow, Value
from quanta_bench.report.tables import STALE

FORMATS = ("md", "csv", "tex", "json")


def cell(value: Value | None) -> str:
    """Mean ± deviation over seeds, to a tenth of a percent."""
    if value is None:
        return "–"
    digits = value.decimals
    spread = "" if value.deviation is None else f" ± {value.deviation:.{digits}f}"
    return f"{value.mean:.{digits}f}{spread}"


def seeds_cell(value: Value | None) -> str:
    """Each seed's value, and the standard error over items in brackets."""
    if value is None:
        return "–"
    digits = value.decimals
    each = " / ".join(f"{number:.{digits}f}" for number in value.seeds.values())
    error = "" if value.standard_error is None else f" ({value.standard_error:.{digits}f})"
    return each + error


def label(row: TableRow) -> str:
    """A row's name, marked where other code than the present computed it."""
    return f"{row.label} {STALE}" if row.stale else row.label


def parameters(row: TableRow) -> str:
    """Number of trained parameters with thousands separators."""
    return "–" if row.trainable is None else f"{row.trainable:,}"


def percent(row: TableRow) -> str:
    """Trained share in percent, to three significant digits."""
    if row.percent is None or not row.trainable:
        return "–"
    return f"{row.percent:.3g}"


def heading(table: Table) -> str:
    """What the percentage is a share of."""
    kinds = {row.denominator for row in table.rows if row.denominator}
    return f"% of {kinds.pop()}" if len(kinds) == 1 else "%"


def seeds_done(row: TableRow) -> str:
    """Number of seeds that are there, of those asked for where some are not, and which."""
    count = len(row.done_seeds)
    wanted = f" of {row.wanted_seeds}" if row.wanted_seeds > count else ""
    return f"{count}{wanted} ({', '.join(map(str, row.done_seeds))})"


def parts(table: Table) -> list[Part[TableRow]]:
    """The means and, once a seed is there, each seed's values."""
    names: list[Shown[TableRow]] = [Shown("Method", label, right=False)]
    if len({row.model for row in table.rows if row.model}) > 1:
        names.append(Shown("Model", lambda row: row.model, right=False))
    trained = [Shown("Trained", parameters), Shown(heading(table), percent)]
    found = [Part(table.title, [*names, *trained, *_values(table, cell)], table.rows)]
    done = [row for row in table.rows if row.done_seeds]
    if done:
        seeds = Shown("Seeds", seeds_done, right=False)
        columns = [*names, seeds, *_values(table, seeds_cell)]
        found.append(Part("Each seed (standard error over items)", columns, done))
    return found


def _values(table: Table, show: Callable[[Value | None], str]) -> list[Shown[TableRow]]:
    """The columns, then the averages."""

    def cell_of(key: str) -> Callable[[TableRow], str]:
        return lambda row: show(row.cells.get(key))

    def average_of(title: str) -> Callable[[TableRow], str]:
        return lambda row: show(row.averages.get(title))

    columns = [Shown(c.title, cell_of(c.key), items=c.items) for c in table.columns]
    return columns + [Shown(title, average_of(title)) for title in table.averages]


def as_markdown(table: Table) -> str:
    """GitHub Markdown: the table, each seed's values, the notes."""
    return grids.as_markdown(table.title, parts(table), table.notes)


def as_latex(table: Table) -> str:
    """A LaTeX ``table`` with booktabs rules: the table, each seed's values, the notes."""
    return grids.as_latex(table.title, parts(table), table.notes)


def as_csv(table: Table) -> str:
    """One line a row and column, the averages last; empty where a number is unknown."""
    text: str = tables.long_form(table).to_csv(index=False, lineterminator="\n")
    return text


def as_json(table: Table) -> str:
    """The table as data."""
    return table.model_dump_json(indent=1) + "\n"


def write(table: Table, folder: Path) -> list[Path]:
    """Write the table in every format; returns the files."""
    texts = (as_markdown(table), as_csv(table), as_latex(table), as_json(table))
    return grids.write(folder, table.name, dict(zip(FORMATS, texts, strict=True)))


def on_screen(table: Table, *, notes: bool = True) -> RenderableType:
    """The table as Rich draws it; with its second part and notes once it is done."""
    drawn = parts(table)
    return grids.on_screen(drawn, table.notes) if notes else grids.on_screen(drawn[:1], ())
