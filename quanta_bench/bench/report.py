"""Render a benchmark report for the screen and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import RenderableType

from quanta_bench.bench.picture import overview
from quanta_bench.bench.runner import Entry, Report
from quanta_bench.benchmark import Case, Finding, Side
from quanta_bench.plugins import BENCHMARKS
from quanta_bench.report import plots, sections
from quanta_bench.report.sections import Column, Section

INTERVALS = (
    "Intervals: 95 %, bootstrapped over rounds; in each round the sides run in turn in one "
    "process. A ratio without an interval was measured once."
)


class FindingRow(NamedTuple):
    """A finding and its case."""

    case: Case
    finding: Finding


class SideRow(NamedTuple):
    """A side and its case."""

    case: Case
    side: Side


def number(value: float) -> str:
    """A ratio or difference with three significant digits; integers in full."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.2e}" if abs(value) < 1e-2 else f"{value:.3g}"


def verdict(finding: Finding) -> str:
    """``met`` or ``missed``, or empty without a target."""
    return {None: "", True: "met", False: "missed"}[finding.met]


def _interval(finding: Finding) -> str:
    if finding.low is None or finding.high is None:
        return ""
    return f"{number(finding.low)} to {number(finding.high)}"


def _findings(entry: Entry) -> Section[FindingRow]:
    columns = (
        Column[FindingRow]("Case", lambda row: row.case.title, right=False, label=True),
        Column[FindingRow]("Compared", lambda row: row.finding.title, right=False, label=True),
        Column[FindingRow]("Value", lambda row: number(row.finding.value)),
        Column[FindingRow]("95 %", lambda row: _interval(row.finding)),
        Column[FindingRow]("Target", lambda row: str(row.finding.target or "")),
        Column[FindingRow]("", lambda row: verdict(row.finding), right=False),
    )
    cases = entry.outcome.cases if entry.outcome else []
    rows = [FindingRow(case, finding) for case in cases for finding in case.findings]
    quick = ", --quick" if entry.quick else ""
    return Section(f"{entry.name}: {entry.title}{quick}", columns, rows)


def _sides(entry: Entry) -> Section[SideRow]:
    columns = (
        Column[SideRow]("Case", lambda row: row.case.title, right=False, label=True),
        Column[SideRow]("Side", lambda row: row.side.name, right=False, label=True),
        Column[SideRow]("Samples", lambda row: str(len(row.side.seconds) or "")),
        Column[SideRow]("Median ms", lambda row: _milliseconds(row.side)),
        Column[SideRow]("Work/s", lambda row: _speed(row.side)),
        Column[SideRow]("Peak MB", lambda row: _megabytes(row.side)),
    )
    cases = entry.outcome.cases if entry.outcome else []
    rows = [SideRow(case, side) for case in cases for side in case.sides]
    return Section("Samples", columns, rows)


def _milliseconds(side: Side) -> str:
    return f"{1000 * median(side.seconds):,.4g}" if side.seconds else ""


def _speed(side: Side) -> str:
    if not side.work or not side.seconds:
        return ""
    return f"{sum(side.work) / sum(side.seconds):,.4g} {side.unit}"


def _megabytes(side: Side) -> str:
    return "" if side.peak_bytes is None else f"{side.peak_bytes / 1e6:,.0f}"


def notes(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Notes by heading: failures, how and on what machine times were measured, and cases' notes."""
    failures: list[str] = []
    case_notes: list[str] = []
    for entry in entries:
        if entry.outcome is None:
            outcome = "failed" if entry.status == "failed" else "could not run"
            failures.append(f"{entry.name} {outcome}: {entry.reason}")
            continue
        case_notes += [f"{entry.name}: {note}" for note in entry.outcome.notes]
        case_notes += [
            f"{entry.name}, {case.title}: {note}"
            for case in entry.outcome.cases
            for note in case.notes
        ]
    reading = [INTERVALS] if any(entry.outcome for entry in entries) else []
    if any(entry.quick for entry in entries):
        reading.append("--quick: fewer rounds, cases and items than the full benchmark.")
    by_heading = {
        "Failures": failures,
        "Measurement": [*reading, *dict.fromkeys(map(_machine, entries))],
        "Cases": case_notes,
    }
    return {heading: texts for heading, texts in by_heading.items() if texts}


def _machine(entry: Entry) -> str:
    measured_on = entry.machine.environment
    versions = ", ".join(
        f"{name} {measured_on.packages[name]}"
        for name in ("torch", "transformers", "peft", "lm_eval")
        if name in measured_on.packages
    )
    commit = f", commit {measured_on.git_commit[:10]}" if measured_on.git_commit else ""
    changed = " with changes" if measured_on.git_dirty else ""
    return (
        f"{entry.date[:10]}: {measured_on.device}, {entry.machine.cores} cores used, "
        f"{measured_on.threads} torch threads, {entry.machine.memory_bytes / 2**30:.0f} GiB, "
        f"{versions}{commit}{changed}."
    )


def on_screen(entries: Sequence[Entry], name: str) -> RenderableType:
    """Each benchmark's findings, and the notes; `name` is the stem of the report's files."""
    done = [entry for entry in entries if entry.outcome]
    return sections.on_screen([_findings(entry) for entry in done], notes(entries), f"{name}.md")


def as_markdown(report: Report) -> str:
    """Each benchmark's findings and sides, and the notes."""
    done = [entry for entry in report.entries if entry.outcome]
    every = [part for entry in done for part in (_findings(entry), _sides(entry))]
    filled = [section for section in every if section.rows]
    return sections.fill("bench.md.jinja", sections=filled, notes=notes(report.entries))


def write(report: Report, folder: Path, name: str) -> list[Path]:
    """Write a report as Markdown, its ratios as a plot, and the benchmarks' own plots.

    Args:
        report: the report.
        folder: where to.
        name: the stem of the files.

    Returns:
        The files written.
    """
    paths = sections.write(folder, name, {"md": as_markdown(report)})
    figures = {name: overview(report)}
    for entry in report.entries:
        if entry.outcome is not None and entry.name in BENCHMARKS.names():
            figures[f"{name}-{entry.name}"] = BENCHMARKS.get(entry.name)().draw(entry.outcome)
    for file, figure in figures.items():
        paths += plots.save(figure, folder, file) if figure is not None else []
    return paths
