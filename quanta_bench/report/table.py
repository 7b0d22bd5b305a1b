"""A table as data: columns, rows, and values with their errors."""

from __future__ import annotations

from pydantic import BaseModel


class Value(BaseModel):
    """A number of a table, in the table's unit (percent for fractions).

    Attributes:
        mean: over seeds.
        deviation: standard deviation over seeds (n - 1); ``None`` for one seed.
        standard_error: of the mean over items, robust to groups of related items.
        seeds: the value of each seed.
        decimals: number of decimals shown; perplexities need two to tell rows apart.
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
        percent: their share of ``denominator``, in percent.
        denominator: the denominator of the share.
        wanted_seeds: number of seeds requested.
        done_seeds: finished seeds.
        cells: values by column.
        averages: by heading; missing while one of its columns is.
        perplexity: perplexity of running text after the run, mean over seeds, if measured.
        footnote: the method's footnote.
        missing: why the row is empty, if it cannot run.
        stale: what of the code has changed since the row was computed, in words.
        without_error: columns whose error over items needs predictions that are not stored.
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
