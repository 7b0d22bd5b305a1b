"""Render a table for the screen and as Markdown, CSV, LaTeX and JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import RenderableType

from quanta_bench.report import sections as shown
from quanta_bench.report.conclusions import DIFFERS
from quanta_bench.report.failed import FAILED
from quanta_bench.report.long_form import long_form
from quanta_bench.report.overwriting import free_name
from quanta_bench.report.screen_rows import MOST_LINES, leading, screen_rows
from quanta_bench.report.sections import Column, Section
from quanta_bench.report.table import Cost, Table, TableRow, Value
from quanta_bench.report.tables import STALE
from quanta_bench.utils.escaping import spreadsheet

FORMATS = ("md", "csv", "tex", "json")

ValueOf = Callable[[TableRow], Value | None]
"""A row's value in a column."""


class SeedLine(NamedTuple):
    """A line in the section of per-seed values.

    Attributes:
        row: the row.
        seed: the seed.
        error: whether it has the seed's standard errors, and not its values.
        first: whether it is the row's first line, which carries the label.
    """

    row: TableRow
    seed: int
    error: bool
    first: bool


def cell(value: Value | None) -> str:
    """Mean ± half of the 95 % interval, to the value's own number of decimals, and its marks."""
    if value is None or value.margin is None:
        return mean(value)
    return f"{_number(value)} ± {value.margin:.{value.decimals}f}{_marks(value)}"


def close_cell(value: Value | None) -> str:
    """Like :func:`cell`, without spaces."""
    return cell(value).replace(" ± ", "±")


def mean(value: Value | None) -> str:
    """Mean over seeds, and its marks."""
    return "–" if value is None else f"{_number(value)}{_marks(value)}"


def _number(value: Value) -> str:
    return f"{value.mean:.{value.decimals}f}"


def _marks(value: Value) -> str:
    letters = f" {value.letters}" if value.letters else ""
    return f"{DIFFERS if value.differs else ''}{letters}"


def label(row: TableRow) -> str:
    """A row's label with its marks: of failed runs, of other code, of its notes."""
    marks = f"{FAILED if row.failed else ''}{STALE if row.stale else ''}{row.marks}"
    return f"{row.label} {marks}" if marks else row.label


def parameters(row: TableRow) -> str:
    """Number of trained parameters with thousands separators."""
    return "–" if row.trainable is None else f"{row.trainable:,}"


def rounded_parameters(row: TableRow) -> str:
    """Number of trained parameters to three digits: ``461K``, ``135M``."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        # A number that rounds to 1000 of a unit is shown as 1 of the next.
        if row.trainable is not None and row.trainable >= 0.9995 * size:
            return f"{row.trainable / size:.3g}{unit}"
    return parameters(row)


def percent(row: TableRow) -> str:
    """Trained share in percent, to three significant digits."""
    if row.percent is None or not row.trainable:
        return "–"
    return f"{row.percent:.3g}"


def heading(table: Table) -> str:
    """Heading of the percentage, with its denominator."""
    kinds = {row.denominator for row in table.rows if row.denominator}
    return f"% of {kinds.pop()}" if len(kinds) == 1 else "%"


COSTS: tuple[tuple[str, Callable[[Cost], float | None], float], ...] = (
    ("Training (s)", lambda cost: cost.training_seconds, 1),
    ("Tokens/s", lambda cost: cost.tokens_per_second, 1),
    ("Scoring (s)", lambda cost: cost.scoring_seconds, 1),
    ("Peak memory (MB)", lambda cost: cost.peak_memory_bytes, 1e6),
    ("Adapter (MB)", lambda cost: cost.adapter_bytes, 1e6),
    ("Energy (kJ)", lambda cost: cost.joules, 1e3),
)
"""Heading, value and unit of each column of costs."""


def _costs(names: Sequence[Column[TableRow]], rows: Sequence[TableRow]) -> Section[TableRow]:
    """What each row took; columns that no row has are left out."""

    def column(title: str, value: Callable[[Cost], float | None], unit: float) -> Column[TableRow]:
        def text(row: TableRow) -> str:
            number = value(row.cost) if row.cost else None
            if number is None:
                return "–"
            return _two_digits(number / unit)

        return Column(title, text)

    columns = [
        column(*cost)
        for cost in COSTS
        if any(row.cost and cost[1](row.cost) is not None for row in rows)
    ]
    title = "Cost of each row: mean over seeds, peak memory the maximum"
    return Section(title, [*names, *columns], rows)


def _two_digits(number: float) -> str:
    """Two significant digits below 10, else an integer: ``0.025``, ``1.9``, ``3,435``."""
    if number >= 10:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 1 or not number else f"{number:.2g}"


def sections(table: Table) -> list[Section[TableRow] | Section[SeedLine]]:
    """The means and, once a seed is finished, the per-seed values and what the rows took."""
    several = len({row.model for row in table.rows if row.model}) > 1
    values = _values(table)
    names = [Column[TableRow]("Method", label, right=False, label=True)]
    if several:
        names.append(Column("Model", lambda row: row.model, right=False, label=True))
    trained = [
        Column("Trained", parameters, (parameters, rounded_parameters)),
        Column(heading(table), percent),
    ]
    means = Section(
        table.title, [*names, *trained, *(_means(*value) for value in values)], table.rows
    )
    lines = [
        SeedLine(row, seed, error, number == 0 and not error)
        for row in table.rows
        for number, seed in enumerate(row.done_seeds)
        for error in (False, True)
    ]
    if not lines:
        return [means]
    labels = [
        Column[SeedLine](
            "Method", lambda line: label(line.row) if line.first else "", right=False, label=True
        )
    ]
    if several:
        labels.append(
            Column(
                "Model", lambda line: line.row.model if line.first else "", right=False, label=True
            )
        )
    labels.append(Column("Seed", lambda line: "s.e." if line.error else str(line.seed), label=True))
    seeds = Section(
        "Each seed, and its own standard error over items (s.e.)",
        [*labels, *(_of_seeds(*value) for value in values)],
        lines,
    )
    return [means, seeds, _costs(names, [row for row in table.rows if row.done_seeds])]


def _values(table: Table) -> list[tuple[str, int | None, ValueOf]]:
    """Heading, number of items and value of each column, then of each average."""

    def of_task(key: str) -> ValueOf:
        return lambda row: row.cells.get(key)

    def of_average(title: str) -> ValueOf:
        return lambda row: row.averages.get(title)

    tasks = [(column.title, column.items, of_task(column.key)) for column in table.columns]
    return [*tasks, *((title, None, of_average(title)) for title in table.averages)]


def _means(title: str, items: int | None, value: ValueOf) -> Column[TableRow]:
    return Column(
        title,
        lambda row: cell(value(row)),
        (lambda row: close_cell(value(row)), lambda row: mean(value(row))),
        items=items,
    )


def _of_seeds(title: str, items: int | None, value: ValueOf) -> Column[SeedLine]:
    def text(line: SeedLine) -> str:
        shown_value = value(line.row)
        if shown_value is None:
            return "–"
        number = (shown_value.seed_errors if line.error else shown_value.seeds).get(line.seed)
        return "–" if number is None else f"{number:.{shown_value.decimals}f}"

    return Column(title, text, items=items)


def as_markdown(table: Table) -> str:
    """GitHub Markdown: the table, each seed's values, the notes."""
    return shown.as_markdown(table.title, sections(table), table.notes)


def as_latex(table: Table) -> str:
    """LaTeX with booktabs rules: the table with its notes, and each seed's values."""
    return shown.as_latex(table.name, table.title, sections(table), table.notes)


def as_csv(table: Table) -> str:
    """One line per row and column, the averages last; cells without a value are empty."""
    safe = long_form(table).astype(object).map(spreadsheet)
    text: str = safe.to_csv(index=False, lineterminator="\n")
    return text


def as_json(table: Table) -> str:
    """The table as data."""
    return table.model_dump_json(indent=1) + "\n"


def write(table: Table, folder: Path) -> list[Path]:
    """Write the table in every format; returns the files.

    Files of an earlier table with more filled cells are kept; see
    :func:`quanta_bench.report.overwriting.free_name`.
    """
    texts = (as_markdown(table), as_csv(table), as_latex(table), as_json(table))
    name = free_name(folder, table.name, texts[FORMATS.index("csv")])
    return shown.write(folder, name, dict(zip(FORMATS, texts, strict=True)))


def on_screen(table: Table, *, notes: bool = True) -> RenderableType:
    """The table for the terminal, a long one in part.

    Args:
        table: the table.
        notes: whether to add the per-seed values, if they are few, what rows took, and the notes.
    """
    rows = screen_rows(table)
    parts = sections(table.model_copy(update={"rows": rows}))
    left_out = []
    if len(rows) < len(table.rows):
        left_out.append(
            f"{len(rows)} of {len(table.rows)} rows: the first of each method and the best by "
            f"{leading(table)}."
        )
    if notes and any(len(part.rows) > MOST_LINES for part in parts):
        parts = [part for part in parts if len(part.rows) <= MOST_LINES]
        left_out.append("The values of single seeds are left out.")
    file = f"{table.name}.md"
    if left_out and notes:
        left_out.append(f"All is in {file}.")
    below = " ".join(left_out)
    if not notes:
        return shown.on_screen(parts[:1], {}, below=below)
    return shown.on_screen(parts, table.notes, file, below=below)
