"""An experiment as a figure: a panel beside the other, curves with 95 % intervals over seeds."""

from __future__ import annotations

import json
import math
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from quanta_bench.experiment import Curve, Experiment, Outcome, Panel, Point
from quanta_bench.report import plots, sections
from quanta_bench.report.overwriting import free_name
from quanta_bench.utils.escaping import csv_text
from quanta_bench.utils.fitted_table import FittedTable
from quanta_bench.utils.json_text import finite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADER = ("panel", "method", "size", "x", "mean", "low", "high", "seeds", "setting")


class Interval(NamedTuple):
    """A mean and its 95 % interval; without ends where there is one value."""

    mean: float
    low: float | None
    high: float | None


def interval(values: Sequence[float]) -> Interval:
    """By Student's t: the values are one for each seed, and independent."""
    mean = statistics.fmean(values)
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return Interval(mean, None, None)
    from scipy import stats

    quantile = float(stats.t.ppf(0.975, len(values) - 1))
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def records(outcome: Outcome) -> list[dict[str, Any]]:
    """One for each point, with every seed's value; ``None`` for what is not finite."""
    found = []
    for panel in outcome.panels:
        for curve in panel.curves:
            for point in curve.points:
                mean = interval(point.values)
                found.append(
                    {
                        "panel": panel.title,
                        "method": curve.name,
                        "size": curve.size,
                        "x": point.x,
                        "mean": finite(mean.mean),
                        "low": mean.low,
                        "high": mean.high,
                        "seeds": len(point.values),
                        "setting": point.setting,
                        "values": [finite(value) for value in point.values],
                    }
                )
    return found


def write(experiment: type[Experiment], outcome: Outcome, folder: Path) -> list[Path]:
    """Write the picture as PNG and SVG, the numbers as CSV and JSON; returns the files.

    Files of an earlier picture that has more numbers are kept; see
    :func:`quanta_bench.report.overwriting.free_name`.
    """
    rows = records(outcome)
    numbers = csv_text(HEADER, ([row[key] for key in HEADER] for row in rows))
    name = free_name(folder, experiment.name, numbers)
    data = {
        "title": experiment.title,
        "across": outcome.across,
        "upward": outcome.upward,
        "caption": outcome.caption,
        "notes": list(outcome.notes),
        "points": rows,
    }
    texts = {"csv": numbers, "json": json.dumps(data, indent=1) + "\n"}
    return sections.write(folder, name, texts) + plots.save(draw(experiment, outcome), folder, name)


def on_screen(outcome: Outcome) -> FittedTable:
    """A line for each point."""
    table = FittedTable()
    for heading in ("panel", "method", "parameters"):
        table.add_column(heading, label=heading == "method", prose=heading == "panel")
    for heading in (outcome.across, "mean", "95 %"):
        table.add_column(heading, right=True)
    table.add_column("setting", prose=True)
    for row in records(outcome):
        ends = "–" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
        table.add_row(
            row["panel"],
            row["method"],
            row["size"],
            f"{row['x']:g}",
            "–" if row["mean"] is None else f"{row['mean']:.3f}",
            ends,
            row["setting"],
        )
    return table


def draw(experiment: type[Experiment], outcome: Outcome) -> Figure:
    """The panels with one legend and the caption below."""
    from matplotlib.figure import Figure

    count = len(outcome.panels)
    figure = Figure(figsize=(3.6 * count + 2.2, 4.4), layout="constrained")
    grid = figure.subplots(1, count, squeeze=False, sharey=True)
    sizes: dict[str, list[str]] = {}
    for panel in outcome.panels:
        for curve in panel.curves:
            sizes.setdefault(curve.name, []).append(curve.size)
    styles = dict(zip(_measured(outcome.panels), plots.STYLES, strict=False))
    for axes, panel in zip(grid.flat, outcome.panels, strict=True):
        for curve in panel.curves:
            _draw_curve(axes, curve, styles, _label(curve.name, sizes[curve.name]))
        places = sorted({point.x for curve in panel.curves for point in curve.points})
        axes.set_xscale("log", base=2)
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()
        axes.set_title(panel.title, fontsize=9)
        axes.set_xlabel(outcome.across)
        # A little below 0, where a perfect fit would lie on the axis.
        axes.set_ylim(bottom=-0.03)
        axes.grid(True, color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].set_ylabel(outcome.upward)
    labelled: dict[str, Any] = {}
    for axes in grid.flat:
        handles, labels = axes.get_legend_handles_labels()
        labelled = dict(zip(labels, handles, strict=True)) | labelled
    figure.legend(
        labelled.values(), labelled, loc="outside right center", frameon=False, fontsize=8
    )
    caption = textwrap.fill(outcome.caption, width=round(58 * count + 30))
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=8)
    figure.suptitle(experiment.title, x=0.01, ha="left", fontsize=10)
    return figure


def _measured(panels: Sequence[Panel]) -> list[str]:
    """Names of curves that are not references, each once."""
    names = (curve.name for panel in panels for curve in panel.curves if not curve.reference)
    return list(dict.fromkeys(names))


def _label(name: str, sizes: Sequence[str]) -> str:
    """A curve's name, and its size in each panel below it."""
    shown = " / ".join(dict.fromkeys(size for size in sizes if size))
    return f"{name}\n({shown})" if shown else name


def _draw_curve(
    axes: Any, curve: Curve, styles: dict[str, tuple[str, str, str]], label: str
) -> None:
    points: Sequence[Point] = [p for p in curve.points if all(map(math.isfinite, p.values))]
    means = [interval(point.values) for point in points]
    places = [point.x for point in points]
    heights = [one.mean for one in means]
    if curve.reference:
        # Above the curves, for one may lie right on it.
        line = {"color": "#000000", "linestyle": ":", "linewidth": 1.8, "zorder": 5}
        axes.plot(places, heights, label=label, **line)
        return
    colour, marker, dashes = styles[curve.name]
    half = [0.0 if one.high is None else one.high - one.mean for one in means]
    axes.errorbar(
        places,
        heights,
        yerr=half,
        color=colour,
        marker=marker,
        linestyle=dashes,
        markersize=5,
        linewidth=1.4,
        capsize=2.5,
        label=label,
    )
