"""Plot validation scores against learning rates: a curve a row, the chosen rates marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quanta_bench.report.plots import STYLES
from quanta_bench.report.rate_study import RowStudy, Study
from quanta_bench.tuning.rates import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(study: Study) -> Figure:
    """A study's curves with standard errors; refused rates are hollow and not on the curve."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    several = len({row.model for row in study.rows}) > 1
    for number, row in enumerate(study.rows):
        name = f"{row.label}, {row.model}" if several else row.label
        _curve(axes, row, name, STYLES[number % len(STYLES)])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=12))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("learning rate")
    axes.set_ylabel(
        f"validation score ({'lower' if study.lower_is_better else 'higher'} is better)"
    )
    axes.grid(True, which="major", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    caption = "bars: standard error; ring: chosen; hollow: refused"
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=8)
    figure.suptitle(study.title, x=0.01, ha="left", fontsize=10)
    return figure


def _curve(axes: Any, row: RowStudy, name: str, style: tuple[str, str, str]) -> None:
    colour, marker, dashes = style
    kept = [trial for trial in row.trials if trial.admissible]
    chosen = [trial for trial in kept if trial.rate == row.chosen]
    label = f"{name}, {short(row.chosen)}" if row.chosen is not None else name
    axes.errorbar(
        [trial.rate for trial in kept],
        [trial.score for trial in kept],
        yerr=[trial.standard_error or 0.0 for trial in kept],
        color=colour,
        marker=marker,
        linestyle=dashes,
        markersize=6,
        linewidth=1.4,
        capsize=2.5,
        label=label,
    )
    axes.plot(
        [trial.rate for trial in chosen],
        [trial.score for trial in chosen],
        marker="o",
        linestyle="",
        markersize=13,
        markerfacecolor="none",
        markeredgecolor=colour,
        markeredgewidth=1.4,
    )
    hollow = [trial for trial in row.trials if not trial.admissible and trial.score is not None]
    axes.plot(
        [trial.rate for trial in hollow],
        [trial.score for trial in hollow],
        marker=marker,
        linestyle="",
        markersize=6,
        markerfacecolor="none",
        markeredgecolor=colour,
    )
