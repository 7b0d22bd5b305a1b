"""A table as data: columns, rows, and values with their errors."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Value(BaseModel):
    """A number of a table, in the table's unit (percent for fractions).

    Attributes:
        mean: over seeds.
        margin: half of the 95 % interval, which accounts for seeds and test items; of a
            row with one seed, that of test items alone; ``None`` if unknown.
        deviation: standard deviation over seeds (n - 1); ``None`` for one seed.
        standard_error: of the mean over items, robust to groups of related items.
        seeds: the value of each seed.
        seed_errors: the standard error of each seed over its own items.
        decimals: how many are shown: a perplexity of 3.1 may be the best or the worst.
        p_holm: two-sided p of the difference from the reference row, after Holm's correction;
            ``None`` if it was not compared.
        letters: rows that share a letter do not differ significantly; empty where that is not
            examined.
        groups: groups of related test items in a seed; of an average, those of its columns.
    """

    mean: float
    deviation: float | None
    standard_error: float | None
    seeds: dict[int, float]
    decimals: int = 1
    margin: float | None = None
    seed_errors: dict[int, float] = {}
    p_holm: float | None = None
    letters: str = ""
    groups: int = 0

    @classmethod
    def level(cls, mean: float) -> Value:
        """A number that has no error."""
        return cls(mean=mean, deviation=None, standard_error=None, seeds={})

    @property
    def differs(self) -> bool:
        """Whether it is shown to differ from the reference row's."""
        return self.p_holm is not None and self.p_holm < 0.05


class Column(BaseModel):
    """A column.

    Attributes:
        key: the name of its cells in a row.
        task: the task.
        title: heading.
        items: number of items scored.
        untouched: whether no row trains on it, so that it shows what training cost.
        lower_is_better: whether a lower score is better, as of perplexities; not written to files.
    """

    key: str
    task: str
    title: str
    items: int = 0
    untouched: bool = False
    lower_is_better: bool = Field(False, exclude=True)


class Cost(BaseModel):
    """What a row took, mean over its seeds; ``None`` where it was not recorded.

    Attributes:
        training_seconds: wall time of training with validation, of all its models, s.
        scoring_seconds: wall time of scoring, s.
        tokens_per_second: real tokens trained on by second of training.
        peak_memory_bytes: the largest peak of a training of any seed.
        adapter_bytes: size of the stored adapters of a seed.
        joules: energy that training with validation used, of all its models, J.
    """

    training_seconds: float | None = None
    scoring_seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    adapter_bytes: float | None = None
    joules: float | None = None


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
        runs: names of the finished runs, by which :func:`quanta_bench.results.load` finds a row.
        cells: values by column.
        averages: by heading; missing while one of its columns is.
        perplexity: perplexity of running text after the run, mean over seeds, if measured.
        cost: what it took; ``None`` before its first run.
        footnote: the method's footnote.
        missing: why the row is empty, if it cannot run.
        stale: what of the code has changed since the row was computed, in words.
        failed: why runs of it have no result, a sentence each.
        marks: stand behind the label, see `quanta_bench.report.conclusions`.
        bounds: columns whose interval is an upper bound, because predictions are not stored.
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
    runs: list[str] = []
    cells: dict[str, Value] = {}
    averages: dict[str, Value] = {}
    perplexity: float | None = None
    cost: Cost | None = None
    footnote: str = ""
    missing: str = ""
    stale: list[str] = []
    failed: list[str] = []
    marks: str = ""
    bounds: list[str] = []
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
