"""A report of benchmarks as a reader sees it: on the screen, in Markdown, and as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from rich.console import RenderableType

from quanta_bench.bench.runner import Entry, Report, stem
from quanta_bench.benchmark import Case, Finding, Side
from quanta_bench.plugins import BENCHMARKS
from quanta_bench.report import grids, plots
from quanta_bench.report.grids import Part, Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVALS = (
    "Intervals: 95 %, by the bootstrap over rounds, in which the sides take turns in one process. "
    "A ratio without one was measured once."
)


class Found(NamedTuple):
    """A finding and its case."""

    case: Case
    of: Finding


class Timed(NamedTuple):
    """A side and its case."""

    case: Case
    of: Side


def number(value: float) -> str:
    """A ratio or a difference with three digits; whole numbers as they are."""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.2e}" if abs(value) < 1e-2 else f"{value:.3g}"


def met(finding: Finding) -> str:
    """Whether a finding's target is met, in a word."""
    return {None: "", True: "met", False: "missed"}[finding.met]


def _interval(finding: Finding) -> str:
    if finding.low is None or finding.high is None:
        return ""
    return f"{number(finding.low)} to {number(finding.high)}"


def _findings(entry: Entry) -> Part[Found]:
    columns = (
        Shown[Found]("Case", lambda line: line.case.title, right=False),
        Shown[Found]("Compared", lambda line: line.of.title, right=False),
        Shown[Found]("Value", lambda line: number(line.of.value)),
        Shown[Found]("95 %", lambda line: _interval(line.of)),
        Shown[Found]("Target", lambda line: str(line.of.target or "")),
        Shown[Found]("", lambda line: met(line.of), right=False),
    )
    cases = entry.outcome.cases if entry.outcome else []
    rows = [Found(case, finding) for case in cases for finding in case.findings]
    short = ", in short" if entry.quick else ""
    return Part(f"{entry.name}: {entry.title}{short}", columns, rows)


def _sides(entry: Entry) -> Part[Timed]:
    columns = (
        Shown[Timed]("Case", lambda line: line.case.title, right=False),
        Shown[Timed]("Side", lambda line: line.of.name, right=False),
        Shown[Timed]("Samples", lambda line: str(len(line.of.seconds) or "")),
        Shown[Timed]("Median ms", lambda line: _milliseconds(line.of)),
        Shown[Timed]("Work/s", lambda line: _speed(line.of)),
        Shown[Timed]("Peak MB", lambda line: _megabytes(line.of)),
    )
    cases = entry.outcome.cases if entry.outcome else []
    rows = [Timed(case, side) for case in cases for side in case.sides]
    return Part("Samples", columns, rows)


def _milliseconds(side: Side) -> str:
    return f"{1000 * median(side.seconds):,.4g}" if side.seconds else ""


def _speed(side: Side) -> str:
    if not side.work or not side.seconds:
        return ""
    return f"{sum(side.work) / sum(side.seconds):,.4g} {side.unit}"


def _megabytes(side: Side) -> str:
    return "" if side.peak_bytes is None else f"{side.peak_bytes / 1e6:,.0f}"


def notes(entries: Sequence[Entry]) -> list[str]:
    """What a reader has to know: failures, notes of the cases, where it was measured."""
    told = []
    for entry in entries:
        if entry.outcome is None:
            how = "failed" if entry.status == "failed" else "could not run"
            told.append(f"{entry.name} {how}: {entry.reason}")
            continue
        told += [f"{entry.name}: {note}" for note in entry.outcome.notes]
        told += [
            f"{entry.name}, {case.title}: {note}"
            for case in entry.outcome.cases
            for note in case.notes
        ]
    if any(entry.outcome for entry in entries):
        told.append(INTERVALS)
    if any(entry.quick for entry in entries):
        told.append("In short (--quick): fewer rounds, cases and items than the full benchmark.")
    return [*told, *dict.fromkeys(map(_where, entries))]


def _where(entry: Entry) -> str:
    here = entry.machine.environment
    versions = ", ".join(
        f"{name} {here.packages[name]}"
        for name in ("torch", "transformers", "peft", "lm_eval")
        if name in here.packages
    )
    commit = f", commit {here.git_commit[:10]}" if here.git_commit else ""
    changed = " with changes" if here.git_dirty else ""
    return (
        f"{entry.date[:10]}: {here.device}, {entry.machine.cores} cores used, {here.threads} "
        f"threads of torch, {entry.machine.memory_bytes / 2**30:.0f} GiB, {versions}"
        f"{commit}{changed}."
    )


def on_screen(entries: Sequence[Entry]) -> RenderableType:
    """The findings of each benchmark, and the notes."""
    done = [entry for entry in entries if entry.outcome]
    return grids.on_screen([_findings(entry) for entry in done], notes(entries))


def as_markdown(report: Report) -> str:
    """The findings and the sides of each benchmark, and the notes."""
    done = [entry for entry in report.entries if entry.outcome]
    parts = [part for entry in done for part in (_findings(entry), _sides(entry)) if part.rows]
    return grids.fill("bench.md.jinja", parts=parts, notes=notes(report.entries))


def picture(report: Report) -> Figure | None:
    """Every ratio as a dot with its interval on a logarithmic axis, its target marked.

    The triangle on a target points to the side on which it is met. ``None`` without ratios.
    """
    from matplotlib.figure import Figure
    from matplotlib.markers import CARETLEFTBASE, CARETRIGHTBASE
    from matplotlib.ticker import LogLocator, ScalarFormatter

    rows = [
        (place, entry, case, finding)
        for place, entry in enumerate(report.entries)
        for case in (entry.outcome.cases if entry.outcome else [])
        for finding in case.findings
        if finding.ratio and 0 < finding.value < float("inf")
    ]
    if not rows:
        return None
    figure = Figure(figsize=(9.4, 0.25 * len(rows) + 1.3), layout="constrained")
    axes = figure.add_subplot()
    styles = [plots.STYLES[n % len(plots.STYLES)] for n in range(len(report.entries))]
    for y, (place, _, _, finding) in enumerate(rows):
        colour, marker, _ = styles[place]
        value = finding.value
        low = value if finding.low is None else finding.low
        high = value if finding.high is None else finding.high
        # The interval of few rounds need not hold their total's ratio.
        bars = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.errorbar(
            [value], [y], xerr=bars, color=colour, marker=marker, markersize=5, capsize=2, lw=1.2
        )
        if finding.target is not None:
            # Carets that stand on the bound's line and point to the left or to the right.
            points = CARETLEFTBASE if finding.target.at == "most" else CARETRIGHTBASE
            bound = finding.target.bound
            axes.plot([bound] * 2, [y - 0.4, y + 0.4], color="#555555", linewidth=1)
            axes.plot([bound], [y], color="#555555", marker=points, markersize=6, linestyle="")
    labels = [f"{entry.name}: {case.title}, {finding.title}" for _, entry, case, finding in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.axvline(1, color="#999999", linewidth=0.8, zorder=0)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter("")
    axes.grid(True, axis="x", which="major", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("ratio, with its 95 % interval\ngrey: target, met where it points", fontsize=8)
    return figure


def write(report: Report, folder: Path, *, quick: bool) -> list[Path]:
    """Write a report as Markdown, its ratios as a picture, and the benchmarks' own; the files."""
    name = stem(quick)
    paths = grids.write(folder, name, {"md": as_markdown(report)})
    drawn = {name: picture(report)}
    for entry in report.entries:
        if entry.outcome is not None and entry.name in BENCHMARKS.names():
            drawn[f"{name}-{entry.name}"] = BENCHMARKS.get(entry.name)().draw(entry.outcome)
    for stem_of, figure in drawn.items():
        paths += plots.save(figure, folder, stem_of) if figure is not None else []
    return paths
