"""A table on the screen and in files: Markdown, CSV, LaTeX, JSON."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from quanta_bench.tables import Table, TableRow, Value

FORMATS = ("md", "csv", "tex", "json")


def cell(value: Value | None) -> str:
    """Mean ± deviation over seeds, to a tenth."""
    if value is None:
        return "–"
    spread = "" if value.deviation is None else f" ± {value.deviation:.1f}"
    return f"{value.mean:.1f}{spread}"


def seeds_cell(value: Value | None) -> str:
    """Each seed's value, and the standard error over items in brackets."""
    if value is None:
        return "–"
    each = " / ".join(f"{number:.1f}" for number in value.seeds.values())
    error = "" if value.standard_error is None else f" ({value.standard_error:.1f})"
    return each + error


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


_TEX = str.maketrans(
    {
        **{char: f"\\{char}" for char in "&%_#${}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
    }
)


def _escape_tex(text: str) -> str:
    return text.translate(_TEX)


def _templates() -> Environment:
    # These are text formats: nothing to escape but what the templates escape themselves.
    environment = Environment(
        loader=PackageLoader("quanta_bench"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.globals.update(
        cell=cell, seeds_cell=seeds_cell, parameters=parameters, percent=percent, heading=heading
    )
    environment.filters["tex"] = _escape_tex
    return environment


def as_markdown(table: Table) -> str:
    """GitHub Markdown: the table, each seed's values, the notes."""
    return _templates().get_template("table.md.jinja").render(table=table)


def as_latex(table: Table) -> str:
    """A LaTeX ``table`` with booktabs rules."""
    return _templates().get_template("table.tex.jinja").render(table=table)


def as_csv(table: Table) -> str:
    """One line a row and task, the average last; empty where a value is not there."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(
        [
            "label",
            "method",
            "model",
            "trainable_parameters",
            "percent",
            "denominator",
            "task",
            "items",
            "mean",
            "deviation_over_seeds",
            "standard_error_over_items",
            "seeds",
            "values",
        ]
    )
    for row in table.rows:
        start = [row.label, row.method, row.model, row.trainable, row.percent, row.denominator]
        columns = [(c.task, c.items, row.cells.get(c.task)) for c in table.columns]
        for task, items, value in [*columns, ("average", "", row.average)]:
            if value is None:
                continue
            out.writerow(
                [
                    *start,
                    task,
                    items,
                    value.mean,
                    value.deviation,
                    value.standard_error,
                    " ".join(map(str, value.seeds)),
                    " ".join(map(str, value.seeds.values())),
                ]
            )
    return text.getvalue()


def as_json(table: Table) -> str:
    """The table as data."""
    return table.model_dump_json(indent=1) + "\n"


def write(table: Table, folder: Path) -> list[Path]:
    """Write the table in every format; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = (as_markdown(table), as_csv(table), as_latex(table), as_json(table))
    paths = []
    for ending, text in zip(FORMATS, texts, strict=True):
        path = folder / f"{table.name}.{ending}"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def on_screen(table: Table, *, notes: bool = True) -> RenderableType:
    """The table as Rich draws it; with its second part and notes once it is done."""
    parts: list[RenderableType] = [_grid(table, table.title, seeds=False)]
    if notes:
        if any(len(row.done_seeds) for row in table.rows):
            parts.append(_grid(table, "Each seed (standard error over items)", seeds=True))
        parts += [Text(f"· {note}", style="dim") for note in table.notes]
    return Group(*parts)


def _grid(table: Table, title: str, *, seeds: bool) -> Grid:
    grid = Grid(title=title, title_justify="left", title_style="bold")
    grid.add_column("Method")
    models = {row.model for row in table.rows if row.model}
    if len(models) > 1:
        grid.add_column("Model")
    if not seeds:
        grid.add_column("Trained", justify="right")
        grid.add_column(heading(table), justify="right")
    for column in table.columns:
        grid.add_column(f"{column.title}\nn={column.items}", justify="right")
    average = table.average and len(table.columns) > 1
    if average:
        grid.add_column(table.average, justify="right")
    show = seeds_cell if seeds else cell
    for row in table.rows:
        if seeds and not row.done_seeds:
            continue
        line = [row.label]
        if len(models) > 1:
            line.append(row.model)
        if not seeds:
            line += [parameters(row), percent(row)]
        line += [show(row.cells.get(column.task)) for column in table.columns]
        if average:
            line.append(show(row.average))
        grid.add_row(*line)
    return grid
