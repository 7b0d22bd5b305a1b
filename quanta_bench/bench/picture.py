"""A one-page plot of a report: every ratio that has a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from quanta_bench.bench.runner import Entry, Report
from quanta_bench.benchmark import Case, Finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MET, MISSED, UNTARGETED = ("#0072B2", "o"), ("#D55E00", "X"), ("#555555", "s")
"""Colour and marker of a ratio; distinguishable with colour blindness and in greyscale."""

WIDTH, HEIGHT = 8.3, 11.6
"""Width and height of an A4 page, in inches."""

MARGINS, LINE = 0.9, 0.165
"""Height of title and legend, and of a line of a panel where the page has room, in inches."""

MAX_LABEL = 80
"""Maximum length of a line's label, in characters."""

Direction = Literal["most", "least"] | None

TITLES: dict[Direction, str] = {
    "most": "Smaller is better: time or memory, relative to the side after the slash",
    "least": "Larger is better: speed, relative to the side after the slash",
    None: "Ratios without a target",
}


class _Line(NamedTuple):
    """A line of a panel: a benchmark's title, or a ratio."""

    label: str
    finding: Finding | None = None


def overview(report: Report) -> Figure | None:
    """Plot the ratios that have a target with their 95 % intervals, one panel per direction.

    A benchmark without targets shows all its ratios. Returns ``None`` if there are no ratios.
    """
    from matplotlib.figure import Figure

    panels = {direction: _lines(report.entries, direction) for direction in TITLES}
    panels = {direction: lines for direction, lines in panels.items() if lines}
    if not panels:
        return None
    heights = [len(lines) + 3.5 for lines in panels.values()]
    height = min(MARGINS + LINE * sum(heights), HEIGHT)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axes, (direction, lines) in zip(grid.flat, panels.items(), strict=True):
        _draw(axes, lines)
        axes.set_title(TITLES[direction], fontsize=9, fontweight="bold", loc="right")
    figure.suptitle(_title(report.entries), x=0.01, ha="left", fontsize=9)
    _legend(figure, panels)
    return figure


def _lines(entries: Sequence[Entry], direction: Direction) -> list[_Line]:
    lines: list[_Line] = []
    for entry in entries:
        ratios = [
            (case, finding)
            for case in (entry.outcome.cases if entry.outcome else [])
            for finding in case.findings
            if finding.ratio and 0 < finding.value < float("inf")
        ]
        if any(finding.target for _, finding in ratios):
            ratios = [(case, finding) for case, finding in ratios if finding.target]
        panel_lines = [
            _Line(_label(case, finding), finding)
            for case, finding in ratios
            if (finding.target.at if finding.target else None) == direction
        ]
        if panel_lines:
            lines += [_Line(f"{entry.name}: {entry.title}"), *panel_lines]
    return lines


def _label(case: Case, finding: Finding) -> str:
    return _short(f"{case.title}: {finding.title}")


def _short(text: str) -> str:
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 1].rstrip()}…"


def _style(finding: Finding) -> tuple[str, str]:
    return {None: UNTARGETED, True: MET, False: MISSED}[finding.met]


def _draw(axes: Axes, lines: Sequence[_Line]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    for y, line in enumerate(lines):
        finding = line.finding
        if finding is None:
            # Starts at the left edge of the page and may extend into the plot, whose line is empty.
            title = axes.annotate(
                line.label,
                (0.01, y),
                xycoords=("figure fraction", "data"),
                va="center",
                fontsize=7,
                fontweight="bold",
                # The vertical axis would strike through it.
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                zorder=5,
            )
            title.set_in_layout(False)
            continue
        colour, marker = _style(finding)
        value = finding.value
        low = value if finding.low is None else finding.low
        high = value if finding.high is None else finding.high
        # With few rounds, the interval need not contain the ratio of the totals.
        bars = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.errorbar(
            [value], [y], xerr=bars, color=colour, marker=marker, markersize=5, capsize=2, lw=1.2
        )
        if finding.target is not None:
            bound = finding.target.bound
            axes.plot([bound] * 2, [y - 0.4, y + 0.4], color="black", linewidth=1.6)
        axes.annotate(
            f"{value:.3g}",
            (1.01, y),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
            color=colour,
        )
    labels = [line.label if line.finding else "" for line in lines]
    axes.set_yticks(range(len(lines)), labels, fontsize=6.5)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.axvline(1, color="#999999", linewidth=0.8, linestyle="--", zorder=0)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, axis="x", which="major", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", labelsize=8)


def _title(entries: Sequence[Entry]) -> str:
    first = next(entry for entry in entries if entry.outcome)
    device = _short(first.machine.environment.device)
    days = sorted({entry.date[:10] for entry in entries if entry.outcome})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (
        f"quanta-bench bench, {when}, {device}\n"
        "Ratios with a target; other ratios and differences are in the report's Markdown file"
    )


def _legend(figure: Figure, panels: dict[Direction, list[_Line]]) -> None:
    from matplotlib.lines import Line2D

    findings = [line.finding for lines in panels.values() for line in lines if line.finding]
    handles = [
        Line2D([], [], color=colour, marker=marker, linewidth=1.2, label=label)
        for label, (colour, marker) in (
            ("target met, with 95 % interval", MET),
            ("target missed", MISSED),
            ("no target", UNTARGETED),
        )
        if any(_style(finding) == (colour, marker) for finding in findings)
    ]
    if any(finding.target for finding in findings):
        mark = Line2D([], [], color="black", label="target", marker="|", linestyle="")
        mark.set_markersize(10)
        mark.set_markeredgewidth(1.6)
        handles.append(mark)
    handles.append(Line2D([], [], color="#999999", linestyle="--", linewidth=0.8, label="equal"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8
    )
