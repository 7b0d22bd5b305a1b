"""Tables as a page shows them: cells with what sorts them and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quanta_bench.report import render
from quanta_bench.report.page.matching import perplexity_columns, runs_of
from quanta_bench.report.sections import Section
from quanta_bench.report.table import Column, Table, TableRow, Value
from quanta_bench.report.tables import STALE
from quanta_bench.results.provenance import stale
from quanta_bench.results.records import Result


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: what it shows.
        sort: the number it is sorted by; ``None`` for its text, or for an empty cell.
        about: what is said of it when it is pointed at or has the focus.
        shade: of a difference, from -4 to 4; ``None`` elsewhere.
        minor: what stands behind the text in smaller type.
    """

    text: str
    sort: float | None = None
    about: str = ""
    shade: int | None = None
    minor: str = ""


@dataclass(frozen=True)
class Heading:
    """A column's heading: its text, what stands below it, and whether it holds numbers."""

    text: str
    below: str = ""
    number: bool = True


@dataclass(frozen=True)
class Line:
    """A row: its cells, the first of which names it."""

    cells: Sequence[Cell]
    stale: str = ""


@dataclass
class Grid:
    """A table of the page.

    Attributes:
        id: unique in the page.
        name: short name.
        caption: its caption.
        headings: of the columns.
        lines: the rows.
        notes: sentences by heading, below it.
    """

    id: str
    name: str
    caption: str
    headings: list[Heading]
    lines: list[Line]
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """A stored table with what is known of it beyond its file.

    Attributes:
        id: unique in the page.
        table: the table.
        runs: the names of each row's runs.
        stale: of each row, what of its code has changed, in words.
        lower: keys of columns in which a lower value is better.
    """

    id: str
    table: Table
    runs: list[list[str]]
    stale: list[str]
    lower: set[str]


def know(number: int, table: Table, results: Mapping[str, Result]) -> Known:
    """Find a table's runs, and whether they are stale by the code that is installed now."""
    runs = [runs_of(row, table.columns, results) for row in table.rows]
    changes = [
        dict.fromkeys([*row.stale, *(word for run in found for word in stale(results[run]))])
        for row, found in zip(table.rows, runs, strict=True)
    ]
    words = ["; ".join(change) for change in changes]
    return Known(f"table-{number}", table, runs, words, perplexity_columns(table, results))


def as_grid(known: Known) -> Grid:
    """A stored table."""
    table = known.table
    several = len({row.model for row in table.rows if row.model}) > 1
    headings = [Heading("Row", number=False)]
    headings += [Heading("Model", number=False)] if several else []
    headings += [Heading("Trained"), Heading(render.heading(table))]
    headings += [
        Heading(column.title, f"n = {column.items:,}" if column.items else "")
        for column in table.columns
    ]
    headings += [Heading(title) for title in table.averages]
    perplexity = any(row.perplexity is not None for row in table.rows)
    headings += [Heading("Perplexity", "running text")] if perplexity else []
    lines = [
        _line(row, words, table, several=several, perplexity=perplexity)
        for row, words in zip(table.rows, known.stale, strict=True)
    ]
    return Grid(known.id, table.name, table.title, headings, lines, _notes(known))


def _line(
    row: TableRow, stale_words: str, table: Table, *, several: bool, perplexity: bool
) -> Line:
    marks = f"{STALE if stale_words else ''}{row.marks}"
    cells = [Cell(row.label, about=row.missing, minor=marks)]
    cells += [Cell(row.model)] if several else []
    cells.append(Cell(render.parameters(row), row.trainable))
    cells.append(Cell(render.percent(row), row.percent))
    cells += [value_cell(row.cells.get(c.key), c, c.key in row.bounds) for c in table.columns]
    cells += [value_cell(row.averages.get(title)) for title in table.averages]
    if perplexity:
        text = "–" if row.perplexity is None else f"{row.perplexity:,.1f}"
        cells.append(Cell(text, row.perplexity))
    return Line(cells, stale_words)


def value_cell(value: Value | None, column: Column | None = None, bound: bool = False) -> Cell:
    """A value: mean ± half of its interval, and what it rests on in words."""
    if value is None:
        return Cell("–", about="not computed")
    return Cell(render.cell(value), value.mean, _about(value, column, bound))


def _about(value: Value, column: Column | None, bound: bool) -> str:
    def number(figure: float) -> str:
        return f"{figure:.{value.decimals}f}"

    parts = []
    if value.margin is not None:
        low, high = value.mean - value.margin, value.mean + value.margin
        upper = " (an upper bound)" if bound else ""
        parts.append(f"95 % interval {number(low)} to {number(high)}{upper}")
    elif value.seeds:
        parts.append("No 95 % interval is stored")
        if value.standard_error is not None:
            parts.append(f"standard error over items {number(value.standard_error)}")
    if value.deviation is not None:
        parts.append(f"standard deviation over seeds {number(value.deviation)}")
    if value.seeds:
        each = ", ".join(
            f"{seed}: {number(score)}"
            + (f" (s.e. {number(value.seed_errors[seed])})" if seed in value.seed_errors else "")
            for seed, score in value.seeds.items()
        )
        parts.append(f"{'seeds' if len(value.seeds) > 1 else 'seed'} {each}")
    if column is not None and column.items:
        parts.append(f"n = {column.items:,} items")
    if value.p_holm is not None:
        parts.append(f"p = {value.p_holm:.2g} after Holm against the reference row")
    if value.letters:
        parts.append(f"letters {value.letters}: rows that share one do not differ significantly")
    return "; ".join(parts)


def _notes(known: Known) -> dict[str, list[str]]:
    notes = {heading: list(texts) for heading, texts in known.table.notes.items() if texts}
    by_reason: dict[str, list[str]] = {}
    for row, words in zip(known.table.rows, known.stale, strict=True):
        if words and not row.stale:
            by_reason.setdefault(words, []).append(row.label)
    found = [
        f"{STALE} Stale, computed by another version of the code than is installed now: "
        f"{', '.join(labels)} ({words})."
        for words, labels in by_reason.items()
    ]
    empty = [f"{row.label} is empty: {row.missing}" for row in known.table.rows if row.missing]
    if found or empty:
        notes["Of this page"] = found + empty
    return notes


def differences(known: Known) -> Grid | None:
    """Each value less the base's in the same column; ``None`` for a table without a base."""
    table = known.table
    bases = {row.model: row for row in table.rows if row.method == "none" and row.cells}
    rows = [row for row in table.rows if row.model in bases and row.method != "none" and row.cells]
    if not rows:
        return None
    keys = [(column.key, column.title) for column in table.columns]
    keys = [(key, title) for key, title in keys if any(key in row.cells for row in rows)]
    found = {
        (number, key): _less(row.cells.get(key), bases[row.model].cells.get(key))
        for number, row in enumerate(rows)
        for key, _ in keys
    }
    found |= {
        (number, title): _less(row.averages.get(title), bases[row.model].averages.get(title))
        for number, row in enumerate(rows)
        for title in table.averages
    }
    every = [abs(value) for value in found.values() if value is not None]
    top = max(every, default=0.0) or 1.0
    columns = [*keys, *((title, title) for title in table.averages)]
    lines = []
    for number, row in enumerate(rows):
        cells = [Cell(row.label, minor=STALE if known.stale[table.rows.index(row)] else "")]
        for key, _ in columns:
            value = found[number, key]
            lower = key in known.lower
            cells.append(_difference(value, top, lower=lower))
        lines.append(Line(cells))
    return Grid(
        f"{known.id}-differences",
        table.name,
        f"{table.title}: difference to the base model",
        [
            Heading("Row", number=False),
            *(Heading(title, "less is better" if k in known.lower else "") for k, title in columns),
        ],
        lines,
    )


def _less(value: Value | None, base: Value | None) -> float | None:
    return None if value is None or base is None else value.mean - base.mean


def _difference(value: float | None, top: float, *, lower: bool) -> Cell:
    if value is None:
        return Cell("–", about="not computed")
    better = -value if lower else value
    # Four steps on either side, so that a step is seen on paper too.
    step = min(4, int(4 * abs(better) / top) + 1) if abs(better) > 0.005 * top else 0
    text = f"{value:+.{2 if lower else 1}f}".replace("-", "−")
    return Cell(text, value, shade=step if better > 0 else -step)


def plain_grid(identity: str, name: str, section: Section[Any]) -> Grid:
    """A section of texts, as reports have them on the screen and in Markdown."""
    headings = [
        Heading(column.title, f"n = {column.items:,}" if column.items else "", column.right)
        for column in section.columns
    ]
    lines = [
        Line([Cell(text, _number(text)) for text in (c.text(row) for c in section.columns)])
        for row in section.rows
    ]
    return Grid(identity, name, section.title, headings, lines)


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None
