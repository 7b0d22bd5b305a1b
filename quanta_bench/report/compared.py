"""Rows compared on stored predictions: the differences, in a table and in sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group, RenderableType

from quanta_bench.errors import BenchError
from quanta_bench.report import evidence
from quanta_bench.report.constant_answers import CHOOSES
from quanta_bench.report.evidence import Evidence
from quanta_bench.report.sections import Column, Section, screen_table
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.cells import Cells
from quanta_bench.runs.places import judged_items
from quanta_bench.statistics import answers
from quanta_bench.statistics.comparison import Difference
from quanta_bench.suites.schema import Suite
from quanta_bench.utils.json_text import finite


@dataclass(frozen=True)
class Line:
    """A difference in one column.

    Attributes:
        column: heading of the column or of the average.
        average: whether it is an average.
        difference: the difference, its rows named as in the table.
        decimals: how many are shown.
    """

    column: str
    average: bool
    difference: Difference
    decimals: int = 1


@dataclass(frozen=True)
class Behaviour:
    """What a row's answers say of it, over all tasks with choices.

    Attributes:
        label: the row.
        consistency: share of items that two seeds answer alike; NaN for one seed.
        calibration_error: expected calibration error of the candidates' probabilities; NaN if
            likelihoods are not stored.
        brier: Brier's score of these; NaN likewise.
    """

    label: str
    consistency: float
    calibration_error: float
    brier: float


@dataclass(frozen=True)
class Compared:
    """Rows of a table, compared with one of them.

    Attributes:
        title: the table's title.
        reference: label of the row that the others are compared with.
        lines: the differences.
        behaviours: of each row.
        left_out: sentences on what could not be compared.
    """

    title: str
    reference: str
    lines: list[Line]
    behaviours: list[Behaviour]
    left_out: list[str]


def compare_rows(
    suite: Suite,
    rows: Mapping[str, Cells],
    reference: str,
    store: Store,
    command: Callable[[Sequence[str]], str],
    lenders: Mapping[str, Cells] | None = None,
) -> Compared:
    """Compare rows with one of them, by columns and averages.

    Args:
        suite: the suite.
        rows: results of each row by its label.
        reference: label of the row to compare with.
        store: where predictions are stored.
        command: of methods, what computes their rows, for messages.
        lenders: other finished rows of the table, which lend their spread over seeds.

    Raises:
        BenchError: predictions are missing, or no column can be paired.
    """
    _check_predictions(rows, store, command)
    known_rows = {**(lenders or {}), **rows}
    fixed = [
        label for label, cell in known_rows.items() if not evidence.trains(cell.row.spec.method)
    ]
    found: dict[tuple[str, str], Evidence] = {}
    titles: dict[str, str] = {}
    for column in suite.shown_columns:
        for label, cell in known_rows.items():
            scored = {
                seed: result
                for seed in cell.complete
                for result in cell.results[seed]
                if column.task in result.tasks
            }
            one = evidence.evidence(column, scored, store) if scored else None
            if one is not None:
                found[label, column.key] = one
                first = next(iter(scored.values())).tasks[column.task]
                titles[column.key] = column.title or f"{first.title} {column.metric}".rstrip()
    lines: list[Line] = []
    by_key = {column.key: column for column in suite.shown_columns}
    for average in suite.shown_averages:
        keys = average.columns
        specs = [by_key[key] for key in keys]
        means = {
            label: evidence.average(specs, [found.get((label, key)) for key in keys])
            for label in known_rows
        }
        known = {label: one for label, one in means.items() if one is not None}
        places = max((one.decimals for one in known.values()), default=1)
        lines += [
            Line(average.title, True, one, places)
            for one in evidence.differences(known, fixed, reference, rows)
        ]
    by_column = {
        key: {label: found[label, key] for label in known_rows if (label, key) in found}
        for key in titles
    }
    for key, single in evidence.across_columns(by_column, fixed, reference, rows).items():
        places = max(found[label, key].decimals for label in by_column[key])
        lines += [Line(titles[key], False, one, places) for one in single]
    if not lines:
        raise BenchError(
            "The rows share no column that was scored with the same seeds on the same items, so "
            f"nothing can be paired. {command(_methods(rows.values()))} computes them alike."
        )
    paired = {line.difference.row for line in lines}
    return Compared(
        title=suite.title,
        reference=reference,
        lines=lines,
        behaviours=[_behaviour(label, cell.everything(), store) for label, cell in rows.items()],
        left_out=[
            f"{label} was not scored with the seeds and items of {reference}, so it is left out."
            for label in rows
            if label != reference and label not in paired
        ],
    )


def _methods(rows: Iterable[Cells]) -> list[str]:
    return list(dict.fromkeys(cell.row.spec.method for cell in rows))


def _check_predictions(
    rows: Mapping[str, Cells], store: Store, command: Callable[[Sequence[str]], str]
) -> None:
    missing = {
        label: [r.run for r in cell.everything() if not store.has_predictions(r.run)]
        for label, cell in rows.items()
    }
    lacking = {label: runs for label, runs in missing.items() if runs}
    if lacking:
        listed = "; ".join(f"{label} ({', '.join(runs)})" for label, runs in lacking.items())
        again = command(_methods(rows[label] for label in lacking))
        raise BenchError(
            f"Differences are paired item by item, and these runs in {store.root} have no "
            f"predictions stored: {listed}. {again} --fresh all computes them again."
        )


def _behaviour(label: str, results: Sequence[Result], store: Store) -> Behaviour:
    by_task: dict[str, list[dict[str, object]]] = {}
    chances: list[Any] = []
    gold: list[int] = []
    for result in results:
        chosen: dict[str, dict[str, object]] = {}
        for line in judged_items(result, store) or ():
            if result.tasks[line["task"]].kind not in CHOOSES:
                continue
            chosen.setdefault(line["task"], {})[str(line["id"])] = line.get("prediction")
            if "log_likelihoods" in line and isinstance(line.get("gold"), int):
                chances.append(_chances(line, result.protocol.get("normaliser", "")))
                gold.append(line["gold"])
        for task, by_item in chosen.items():
            by_task.setdefault(task, []).append(by_item)
    shares = [answers.consistency(seeds) for seeds in by_task.values()]
    known = [share for share in shares if not math.isnan(share)]
    return Behaviour(
        label,
        float(np.mean(known)) if known else math.nan,
        answers.calibration_error(chances, gold) if chances else math.nan,
        answers.brier(chances, gold) if chances else math.nan,
    )


def _chances(line: Mapping[str, Any], normaliser: str) -> Any:
    values = np.asarray(line["log_likelihoods"], dtype=float)
    lengths = line.get({"token_mean": "tokens", "byte_mean": "bytes"}.get(normaliser, ""))
    scores = values / np.asarray(lengths, dtype=float) if lengths else values
    return answers.probabilities(scores.tolist())


def sentence(line: Line) -> str:
    """A difference in words."""
    one, places = line.difference, line.decimals
    low, high = one.interval
    if math.isnan(one.p):
        return f"{line.column}: {one.row} and {one.reference} share too few groups to compare."
    if not one.error.variance and not one.effect:
        return f"{line.column}: {one.row} and {one.reference} score alike on every group of items."
    size = f"{abs(one.effect):.{places}f}"
    way = "as good as" if not float(size) else f"{size} {'above' if one.effect > 0 else 'below'}"
    verdict = (
        "The difference is significant."
        if one.shown
        else "The difference is not significant; with 80 % power this design detects "
        f"{one.smallest:.{places}f} or more."
    )
    noise = " The interval accounts for test items alone." if one.seeds == 1 else ""
    seeds = f"{one.seeds} seed{'' if one.seeds == 1 else 's'}"
    return (
        f"{line.column}: {one.row} is {way} {one.reference} (95 % interval {low:+.{places}f} to "
        f"{high:+.{places}f}, p = {one.p_holm:.2g} after Holm for {one.comparisons}; {seeds}, "
        f"{one.groups:,} groups of items). {verdict}{noise}"
    )


def on_screen(compared: Compared) -> RenderableType:
    """The differences, what they say, and how rows answer."""

    def part(text: Callable[[Difference], str]) -> Callable[[Line], str]:
        return lambda line: text(line.difference)

    differences = Section(
        f"{compared.title}: each row minus {compared.reference}",
        [
            Column("Row", part(lambda one: one.row), right=False, label=True),
            Column("Column", lambda line: line.column, right=False, label=True),
            Column("Diff.", lambda line: f"{line.difference.effect:+.{line.decimals}f}"),
            Column("95 % interval", _interval),
            Column("p", part(lambda one: f"{one.p:.3f}")),
            Column("Holm", part(lambda one: f"{one.p_holm:.3f}{'*' if one.shown else ''}")),
            Column("Detects", _smallest),
        ],
        compared.lines,
    )
    behaviours = Section(
        "Answers of each row, over all tasks with choices",
        [
            Column[Behaviour]("Row", lambda row: row.label, right=False, label=True),
            Column("Alike over seeds", lambda row: _percent(row.consistency)),
            Column("ECE", lambda row: _fraction(row.calibration_error)),
            Column("Brier", lambda row: _fraction(row.brier)),
        ],
        compared.behaviours,
    )
    chosen = any(
        not (math.isnan(row.consistency) and math.isnan(row.brier)) for row in compared.behaviours
    )
    answered: list[RenderableType] = [screen_table(behaviours), ""] if chosen else []
    main = [line for line in compared.lines if line.average] or compared.lines
    return Group(
        screen_table(differences),
        "",
        *(sentence(line) for line in main),
        *compared.left_out,
        "",
        *answered,
        "* differs after Holm's correction. Detects: the smallest difference that this design "
        "detects with 80 % power.",
    )


def _interval(line: Line) -> str:
    low, high = line.difference.interval
    return f"{low:+.{line.decimals}f} to {high:+.{line.decimals}f}"


def _smallest(line: Line) -> str:
    smallest = line.difference.smallest
    return "–" if math.isnan(smallest) else f"{smallest:.{line.decimals}f}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def _fraction(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def as_data(compared: Compared) -> dict[str, Any]:
    """The comparison as plain values; what is undefined is ``None``."""
    return {
        "title": compared.title,
        "reference": compared.reference,
        "differences": [
            {
                "row": line.difference.row,
                "column": line.column,
                "average": line.average,
                "effect": line.difference.effect,
                "interval_low": finite(line.difference.interval[0]),
                "interval_high": finite(line.difference.interval[1]),
                "p": finite(line.difference.p),
                "p_holm": finite(line.difference.p_holm),
                "comparisons": line.difference.comparisons,
                "shown": line.difference.shown,
                "smallest_at_80_percent_power": finite(line.difference.smallest),
                "seeds": line.difference.seeds,
                "groups": line.difference.groups,
                "test": line.difference.test,
                "noise": "items" if line.difference.seeds == 1 else "seeds and items",
                "sentence": sentence(line),
            }
            for line in compared.lines
        ],
        "rows": [
            {
                "row": row.label,
                "consistency_over_seeds": finite(row.consistency),
                "expected_calibration_error": finite(row.calibration_error),
                "brier": finite(row.brier),
            }
            for row in compared.behaviours
        ],
        "left_out": compared.left_out,
    }
