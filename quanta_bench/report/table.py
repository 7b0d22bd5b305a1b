"""A table as data: columns, rows, values with their errors."""

from __future__ import annotations

from pydantic import BaseModel


class Value(BaseModel):
    """A number of a table, in the table's unit (percent for fractions).

    Attributes:
        mean: over seeds.
        deviation: standard deviation over seeds (n - 1); ``None`` for one seed.
        standard_error: of the mean over items, robust to groups of related items.
        seeds: the value of each seed.
        decimals: how many are shown: a perplexity of 3.1 may be the best or the worst.
    """

    mean: float
    deviation: float | None
    standard_error: float | None
    seeds: dict[int, float]
    decimals: int = 1


class Column(BaseModel):
    """A column.

    Attributes:
        key: the name of its cells in a row.
        task: the task.
        title: heading.
        items: number of items scored.
    """

    key: str
    task: str
    title: str
    items: int = 0


class TableRow(BaseModel):
    """A row of a table; cells that are not computed are absent.

    Attributes:
        label: the row's name.
        method: registered name of the method; empty for the chance level.
        model: the base model.
        trainable: trained parameters.
        percent: share of them, by ``denominator``.
        denominator: what the share is of.
        wanted_seeds: number of seeds asked for.
        done_seeds: seeds that are there.
        cells: values by column.
        averages: by heading; absent while one of its columns is.
        perplexity: of running text after the run, mean over seeds, where measured.
        footnote: what the method has to say of itself.
        missing: why the row is empty, if it cannot run.
        stale: what of the code has changed since the row was computed, in words.
        without_error: columns whose error over items takes predictions that are not stored.
    """

    label: str
    method: str = ""
    model: str = ""
    trainable: int | None = None
    percent: float | None = None
    denominator: str = ""
    wanted_seeds: int = 0
    done_seeds: list[int] = []
    cells: dict[str, Value] = {}
    averages: dict[str, Value] = {}
    perplexity: float | None = None
    footnote: str = ""
    missing: str = ""
    stale: list[str] = []
    without_error: list[str] = []


class Table(BaseModel):
    """A table as it stands.

    Attributes:
        name: short name.
        title: caption.
        profile: the profile it was run in.
        averages: headings of the averages.
        columns: columns in order.
        rows: rows in order, the chance level first.
        notes: sentences by heading, as `quanta_bench.report.notes` gives them.
    """

    name: str
    title: str
    profile: str
    averages: list[str]
    columns: list[Column]
    rows: list[TableRow]
    notes: dict[str, list[str]]
