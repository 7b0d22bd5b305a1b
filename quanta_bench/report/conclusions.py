"""What a table shows of its rows: differences from a reference, letters, and notes that say so."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence

from quanta_bench.plugins import METHODS
from quanta_bench.report import evidence
from quanta_bench.report.evidence import Evidence
from quanta_bench.report.table import TableRow, Value
from quanta_bench.report.tuned import is_tuned
from quanta_bench.runs.cells import Cells
from quanta_bench.statistics.comparison import Difference
from quanta_bench.suites.schema import Profile

DIFFERS = "*"
"""Stands behind a value that differs from the reference's."""
UNTUNED = "‡"
"""Marks the label of a row whose learning rate was not tuned for its task and size."""
ONE_SEED = "§"
"""Marks the label of a row that trains and has one seed."""

SEED_VARIES = {
    "init": "the method's start",
    "order": "the order of training items",
    "sample": "which items are drawn, for training and for the test",
}

Found = Mapping[tuple[int, str], Evidence]
"""Evidence by row's number and column's key or average's heading."""


def mark(
    rows: Sequence[TableRow], found: Found, untouched: Mapping[str, str] | None = None
) -> list[str]:
    """Mark what differs from the reference and give letters to averages.

    Rows of different base models are not compared. Averages are one family of comparisons, the
    columns of a table together another; a third are its untouched columns, compared with the base.

    Args:
        rows: the table's rows; their values are marked.
        found: what there is of evidence.
        untouched: headings of the columns that no row trains on, by key.

    Returns:
        Notes.
    """
    notes = []
    models = dict.fromkeys(row.model for row in rows)
    for model in models:
        members = [number for number, row in enumerate(rows) if row.model == model]
        of_model = _mark_model(rows, members, found, untouched or {})
        of_model += _mark_untouched(rows, members, found, untouched or {})
        # Letters and marks of one model say nothing about the rows of another.
        notes += [f"{model}: {note}" for note in of_model] if len(models) > 1 else of_model
    return notes


def row_name(label: str, model: str, several: bool) -> str:
    """A row's label, with its model if the table has several."""
    return f"{label} ({model})" if several and model else label


def _mark_model(
    rows: Sequence[TableRow], members: Sequence[int], found: Found, untouched: Container[str]
) -> list[str]:
    reference = next((n for n in members if rows[n].method == evidence.REFERENCE), None)
    fixed = _fixed(rows, members)
    if reference is None or not rows[reference].cells:
        return []
    averages = list(dict.fromkeys(key for n in members for key in rows[n].averages))
    keys = [
        key
        for key in dict.fromkeys(key for n in members for key in rows[n].cells)
        if key not in untouched
    ]
    notes: list[str] = []
    by_key = {
        key: {str(n): found[n, key] for n in members if (n, key) in found}
        for key in (*keys, *averages)
    }
    for key in averages or keys:
        for name, group in evidence.groups(by_key[key], fixed, str(reference)).items():
            value = _value(rows[int(name)], key)
            if value is not None:
                value.letters = group
    single = evidence.across_columns({key: by_key[key] for key in keys}, fixed, str(reference))
    mean = {key: evidence.differences(by_key[key], fixed, str(reference)) for key in averages}
    for key, compared in (*single.items(), *mean.items()):
        for one in compared:
            _differ(rows[int(one.row)], key, one.p_holm)
    for key, compared in mean.items():
        if compared:
            notes += _conclusion(rows, reference, key, compared)
    if any(single.values()):
        count = sum(not math.isnan(one.p) for of_key in single.values() for one in of_key)
        notes.append(
            f"{DIFFERS} beside a column's value: differs from {rows[reference].label}, paired over "
            f"seeds and items (p < 0.05 after Holm's correction for the {count} comparisons of all "
            "columns)."
        )
    if any(len(by_key[key]) > evidence.MOST_LETTERED for key in averages or keys):
        notes.append(f"Letters stand beside {evidence.MOST_LETTERED} rows at most.")
    if any(value.letters for n in members for value in _values(rows[n])):
        notes.append(
            "Rows that share a letter do not differ significantly (all pairs, p < 0.05 after Holm)."
        )
    return notes


def _mark_untouched(
    rows: Sequence[TableRow], members: Sequence[int], found: Found, untouched: Mapping[str, str]
) -> list[str]:
    """Mark what fine-tuning cost: values of untouched columns that differ from the base's."""
    base = next((n for n in members if rows[n].method == evidence.BASE), None)
    if base is None or not rows[base].cells or not untouched:
        return []
    by_key = {
        key: {str(n): found[n, key] for n in members if (n, key) in found} for key in untouched
    }
    compared = evidence.across_columns(by_key, _fixed(rows, members), str(base))
    for key, of_key in compared.items():
        for one in of_key:
            _differ(rows[int(one.row)], key, one.p_holm)
    count = sum(not math.isnan(one.p) for of_key in compared.values() for one in of_key)
    if not count:
        return []
    return [
        f"No row trains on {', '.join(untouched.values())}: what is worse there than "
        f"{rows[base].label} is forgotten. {DIFFERS} there: differs from {rows[base].label} (p < "
        f"0.05 after Holm's correction for {count} comparisons)."
    ]


def _fixed(rows: Sequence[TableRow], members: Sequence[int]) -> list[str]:
    """The numbers of the rows that do not train."""
    return [str(n) for n in members if not rows[n].missing and not evidence.trains(rows[n].method)]


def _conclusion(
    rows: Sequence[TableRow], reference: int, key: str, compared: Sequence[Difference]
) -> list[str]:
    name = rows[reference].label
    shown = [rows[int(one.row)].label for one in compared if one.shown]
    count = len(compared)
    start = (
        f"{DIFFERS} {key} differs from that of {name}: {', '.join(shown)}"
        if shown
        else f"{key}: no row differs significantly from {name}"
    )
    least = sorted(one.smallest for one in compared if math.isfinite(one.smallest))
    power = (
        f" This design detects differences of {_span(least)} points with 80 % power."
        if least
        else ""
    )
    return [f"{start} (p < 0.05 after Holm's correction for {count} comparisons).{power}"]


def _span(values: Sequence[float]) -> str:
    low, high = f"{values[0]:.1f}", f"{values[-1]:.1f}"
    return low if low == high else f"{low} to {high}"


def _differ(row: TableRow, key: str, p: float) -> None:
    value = _value(row, key)
    if value is not None:
        value.p_holm = None if math.isnan(p) else p


def _value(row: TableRow, key: str) -> Value | None:
    return row.averages.get(key) or row.cells.get(key)


def _values(row: TableRow) -> Iterable[Value]:
    return [*row.cells.values(), *row.averages.values()]


def row_marks(row: TableRow, cell: Cells) -> str:
    """Marks of a row's label: not tuned, one seed."""
    if row.missing or not evidence.trains(row.method):
        return ""
    origin = cell.row.origin.get("learning_rate", "")
    rates = {training.learning_rate for training, _ in cell.row.jobs}
    # A row inherits the origin with the default rate; it does not hold for a rate of its own.
    inherited = {
        default.training.get("learning_rate")
        for default in METHODS.get(row.method).rows.values()
        if default.origin.get("learning_rate") == origin
    }
    stated = inherited or {cell.row.spec.training.get("learning_rate")}
    tuned = is_tuned(origin, cell.row.jobs) and rates <= stated
    marks = "" if tuned else UNTUNED
    return marks + (ONE_SEED if len(row.done_seeds) == 1 else "")


def notes(profile: Profile, rows: Sequence[TableRow]) -> tuple[list[str], list[str]]:
    """How cells are to be read, and what is to be held against rows: notes on scores, caveats."""
    filled = [row for row in rows if row.cells]
    if not filled:
        return [], []
    several = len({row.model for row in rows}) > 1

    def labels(marked: Iterable[TableRow]) -> str:
        return ", ".join(row_name(row.label, row.model, several) for row in marked)

    scores = [
        "Cells are the mean over seeds ± half the width of the 95 % interval, which accounts for "
        "training seeds and test items, related items clustered. In the lines of single seeds, "
        "s.e. is the standard error over items.",
    ]
    if profile.vary:
        varied = ", ".join(SEED_VARIES[name] for name in profile.vary)
        scores.append(f"A seed varies {varied}.")
    caveats = []
    untuned = [row for row in filled if UNTUNED in row.marks]
    if untuned:
        caveats.append(
            f"{UNTUNED} Learning rate not tuned for this task and size: {labels(untuned)}."
        )
    single = [row for row in filled if ONE_SEED in row.marks]
    if single:
        caveats.append(
            f"{ONE_SEED} One seed, so the interval accounts for test items alone: {labels(single)}."
        )
    bounds = [row for row in filled if row.bounds]
    if bounds:
        caveats.append(
            f"Intervals without predictions are upper bounds, and not compared: {labels(bounds)}."
        )
    return scores, caveats
