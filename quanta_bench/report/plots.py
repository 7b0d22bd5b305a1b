"""Pictures of results, legible in grey and to the colour-blind; each with its numbers as CSV."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

# Okabe and Ito's colours, told apart with any kind of colour vision, ordered so that neighbours
# differ in lightness too; marker and dashes differ as well, for print in grey.
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
    curves: Sequence[Curve], levels: Sequence[Level], *, metric: str, errors: str, title: str = ""
) -> Figure:
    """A metric against trainable parameters on a logarithmic axis, a curve a method.

    Args:
        curves: methods with their sizes.
        levels: methods drawn as lines over the whole width.
        metric: the vertical axis, with its unit.
        errors: what the bars are, for the caption under the axis.
        title: printed above.
    """
    from matplotlib.figure import Figure

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
            linestyle=dashes,
            markersize=6,
            linewidth=1.4,
            capsize=2.5,
            label=curve.name,
        )
    for level, dashes in zip(levels, itertools.cycle(("-", "--", ":")), strict=False):
        axes.axhline(level.mean, color="#555555", linestyle=dashes, linewidth=1.2, label=level.name)
        if level.error:
            low, high = level.mean - level.error, level.mean + level.error
            axes.axhspan(low, high, color="#555555", alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlabel(f"trainable parameters\n{errors}", fontsize=9)
    axes.set_ylabel(metric)
    axes.grid(True, which="major", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    # Beside the curves, never over them.
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    _set_title(figure, title)
    return figure


def _styles(count: int) -> list[tuple[str, str, str]]:
    return [STYLES[index % len(STYLES)] for index in range(count)]


@dataclass(frozen=True)
class Panel:
    """A heat map of subspace similarity.

    Attributes:
        title: what is compared, and of which module.
        values: similarity, shape (m, n), in [0, 1].
        rows: name of the first run, whose number of vectors runs downwards.
        columns: name of the second run.
    """

    title: str
    values: Tensor
    rows: str
    columns: str


def heat_maps(panels: Sequence[Panel], *, across: int = 3, title: str = "") -> Figure:
    """Subspace similarities on one scale; only ``i <= j``, as in the paper's figures.

    Args:
        panels: row by row.
        across: panels in a row, at most.
        title: printed above.

    Raises:
        ValueError: there are no panels.
    """
    import numpy as np
    from matplotlib.figure import Figure

    if not panels:
        raise ValueError("heat_maps: no panels")
    across = min(across, len(panels))
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(3.3 * across + 0.9, 2.9 * down + 0.4), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    for place in list(grid.flat)[len(panels) :]:
        place.set_visible(False)
    image = None
    for axes, panel in zip(grid.flat, panels, strict=False):
        values = np.ma.array(panel.values.numpy(), mask=False)
        rows, columns = panel.values.shape
        values.mask = np.tri(rows, columns, k=-1, dtype=bool)
        # One map of growing lightness: in grey it stays in order.
        image = axes.imshow(values, vmin=0, vmax=1, cmap="cividis", aspect="auto", origin="upper")
        axes.set_title(panel.title, fontsize=9)
        axes.set_xlabel(f"first j vectors, {panel.columns}", fontsize=8)
        axes.set_ylabel(f"first i vectors, {panel.rows}", fontsize=8)
        for side, size in ((axes.xaxis, values.shape[1]), (axes.yaxis, values.shape[0])):
            marks = sorted({0, size // 4 - 1, size // 2 - 1, size * 3 // 4 - 1, size - 1} - {-1})
            side.set_ticks(marks, [str(mark + 1) for mark in marks], fontsize=7)
    if image is not None:
        figure.colorbar(image, ax=list(grid.flat), label="subspace similarity", shrink=0.85)
    _set_title(figure, title)
    return figure


@dataclass(frozen=True)
class Spectra:
    """The singular values of several runs' updates of one module, each largest first."""

    title: str
    lines: tuple[tuple[str, Tensor], ...]


def spectra(panels: Sequence[Spectra], *, title: str = "") -> Figure:
    """Singular values of updates, each relative to its largest, against their number.

    A run has one style in all panels; the panels have the same runs in the same order.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.0 * len(panels) + 2.4, 3.6), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    for axes, panel in zip(grid.flat, panels, strict=True):
        styles = _styles(len(panel.lines))
        for (name, found), (colour, _, dashes) in zip(panel.lines, styles, strict=True):
            shown = (found / found.max()).tolist() if len(found) and found.max() > 0 else []
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
    """Write a picture as PNG (200 dots an inch) and SVG; the same figure gives the same bytes."""
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(paths[0], dpi=200)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths
