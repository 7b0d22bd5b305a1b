"""Plots of results, legible in greyscale and with colour blindness."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quanta_bench.utils.escaping import drawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

# Okabe and Ito's colour-blind-safe palette, ordered so that neighbours also differ in lightness;
# markers and dashes differ as well, for greyscale print.
STYLES = (
    ("#000000", "o", "-"),
    ("#E69F00", "s", "--"),
    ("#0072B2", "^", "-."),
    ("#56B4E9", "D", ":"),
    ("#D55E00", "v", "-"),
    ("#009E73", "P", "--"),
    ("#CC79A7", "X", "-."),
    ("#7F7F7F", "<", ":"),
    ("#B8A800", ">", "-"),
    ("#4B0092", "*", "--"),
)


@dataclass(frozen=True)
class Point:
    """One size of a method.

    Attributes:
        label: the row's name.
        parameters: trainable parameters.
        mean: the metric, mean over seeds.
        error: its error bar, one-sided; ``None`` for none.
    """

    label: str
    parameters: int
    mean: float
    error: float | None = None


@dataclass(frozen=True)
class Curve:
    """One method at several sizes."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Level:
    """A horizontal line: a method whose size is not a choice, such as full fine-tuning."""

    name: str
    mean: float
    error: float | None = None


def against_parameters(
    curves: Sequence[Curve], levels: Sequence[Level], *, metric: str, caption: str, title: str = ""
) -> Figure:
    """Plot a metric against trainable parameters on a logarithmic axis, one curve per method.

    A level's error is given in the legend: a band across the plot would hide the curves.

    Args:
        curves: methods with their sizes.
        levels: methods drawn as horizontal lines.
        metric: label of the vertical axis, with its unit.
        caption: description of the error bars, below the axis.
        title: title of the plot.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for curve, (colour, marker, dashes) in zip(curves, _styles(len(curves)), strict=True):
        points = sorted(curve.points, key=lambda point: point.parameters)
        bars = [0.0 if point.error is None else point.error for point in points]
        axes.errorbar(
            [point.parameters for point in points],
            [point.mean for point in points],
            yerr=bars if any(bars) else None,
            color=colour,
            marker=marker,
            linestyle=dashes if len(points) > 1 else "",
            markersize=6,
            linewidth=1.4,
            capsize=2.5,
            label=curve.name,
        )
    for level, dashes in zip(levels, itertools.cycle(("-", "--", ":")), strict=False):
        error = "" if level.error is None else f" ± {level.error:.1f}"
        label = f"{level.name}, {level.mean:.1f}{error}"
        axes.axhline(level.mean, color="#555555", linestyle=dashes, linewidth=1.2, label=label)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("trainable parameters")
    axes.set_ylabel(metric)
    axes.grid(True, which="major", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    # Next to the curves, never on top of them.
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=8)
    _set_title(figure, title)
    return figure


def _styles(count: int) -> list[tuple[str, str, str]]:
    return [STYLES[index % len(STYLES)] for index in range(count)]


@dataclass(frozen=True)
class Panel:
    """A heat map of subspace similarity.

    Attributes:
        title: the module, or another description.
        values: similarity, shape (m, n), in [0, 1].
        rows: name of the first run, whose number of vectors grows downwards.
        columns: name of the second run, whose number of vectors grows to the right.
    """

    title: str
    values: Tensor
    rows: str
    columns: str


def heat_maps(panels: Sequence[Panel], *, across: int = 3, title: str = "") -> Figure:
    """Plot subspace similarities on a common scale; only ``i <= j``, as in the paper.

    Args:
        panels: the panels, row by row.
        across: maximum number of panels in a row.
        title: title of the plot.

    Raises:
        ValueError: there are no panels.
    """
    import numpy as np
    from matplotlib.figure import Figure

    if not panels:
        raise ValueError("heat_maps: no panels")
    across = min(across, len(panels))
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(3.1 * across + 0.9, 2.6 * down + 0.5), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    shown = []
    for panel in panels:
        values = np.ma.array(panel.values.numpy(), mask=False)
        values.mask = np.tri(values.shape[0], values.shape[1], k=-1, dtype=bool)
        shown.append(values)
    # Rounded up to the next 0.05, so that plots of similar runs have the same scale.
    highest = min(1.0, math.ceil(max(float(values.max()) for values in shown) * 20 - 1e-9) / 20)
    image: Any = None
    for axes, panel, values in zip(grid.flat, panels, shown, strict=False):
        # A map of increasing lightness, which keeps its order in greyscale.
        image = axes.imshow(
            values, vmin=0, vmax=highest or 1.0, cmap="cividis", aspect="auto", origin="upper"
        )
        axes.set_title(panel.title, fontsize=9)
        axes.set_xlabel(f"first j vectors, {panel.columns}", fontsize=8)
        axes.set_ylabel(f"first i vectors,\n{panel.rows}", fontsize=8)
        for side, size in ((axes.xaxis, values.shape[1]), (axes.yaxis, values.shape[0])):
            ticks = sorted({0, size // 4 - 1, size // 2 - 1, size * 3 // 4 - 1, size - 1} - {-1})
            side.set_ticks(ticks, [str(tick + 1) for tick in ticks], fontsize=7)
    label = "subspace similarity (0: orthogonal, 1: one span contains the other)"
    figure.colorbar(image, ax=list(grid.flat), label=label, shrink=0.85, aspect=40)
    _set_title(figure, title)
    return figure


@dataclass(frozen=True)
class Spectra:
    """The singular values of several runs' updates of one module, in descending order."""

    title: str
    lines: tuple[tuple[str, Tensor], ...]


def spectra(panels: Sequence[Spectra], *, title: str = "") -> Figure:
    """Plot the singular values of updates, relative to the largest, against their index.

    A run has the same style in all panels; the panels have the same runs in the same order.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.0 * len(panels) + 2.4, 3.6), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    for axes, panel in zip(grid.flat, panels, strict=True):
        styles = _styles(len(panel.lines))
        for (name, singular), (colour, _, dashes) in zip(panel.lines, styles, strict=True):
            shown = (
                (singular / singular.max()).tolist() if len(singular) and singular.max() > 0 else []
            )
            axes.plot(range(1, len(shown) + 1), shown, color=colour, linestyle=dashes, label=name)
        axes.set_title(panel.title, fontsize=9)
        axes.set_yscale("log")
        axes.set_ylim(bottom=1e-6)
        axes.set_xlabel("singular value, by size")
        axes.grid(True, color="#DDDDDD", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].set_ylabel("relative to the largest")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    _set_title(figure, title)
    return figure


def _set_title(figure: Figure, title: str) -> None:
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a plot as PNG (200 dpi) and SVG; the same figure gives the same bytes."""
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    _show_as_written(figure)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(paths[0], dpi=200)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _show_as_written(figure: Figure) -> None:
    """Show the texts of suites and plug-ins as they are written.

    matplotlib reads what stands between dollar signs as a formula, and an SVG with a control
    character is no XML. Numbers along the axes are matplotlib's own formulas and stay.
    """
    from matplotlib.text import Text

    axes = [axis for one in figure.axes for axis in (one.xaxis, one.yaxis)]
    ticks = [tick for axis in axes for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())]
    numbers = {id(label) for tick in ticks for label in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        if isinstance(text, Text) and id(text) not in numbers:
            text.set_parse_math(False)
            text.set_text(drawable(text.get_text()))
