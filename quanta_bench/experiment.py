"""The interface of an experiment: a figure that is not made from the runs of a suite.

An experiment plug-in imports this module, :mod:`quanta_bench.method` and little else of the suite.
It is a subclass of :class:`Experiment`, registered in the entry-point group
``quanta_bench.experiments``, and ``quanta-bench figure NAME`` runs and draws it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from quanta_bench.errors import BenchError, UsageError
from quanta_bench.utils.extent import Extent, say_nothing

__all__ = [
    "BenchError",
    "Conditions",
    "Curve",
    "Experiment",
    "Outcome",
    "Panel",
    "Point",
    "UsageError",
]


@dataclass(frozen=True)
class Conditions(Extent):
    """How an experiment is to run.

    Attributes:
        quick: whether to take seconds rather than minutes: fewer points, seeds and steps.
        seeds: the seeds that the user chose; empty for the experiment's own.
        tell: called with a line of progress from time to time.
    """

    seeds: tuple[int, ...] = ()
    tell: Callable[[str], None] = say_nothing


@dataclass(frozen=True)
class Point:
    """One point of a curve.

    Attributes:
        x: where.
        values: what was measured, one for each seed, in the seeds' order.
        setting: what was chosen for it, such as a learning rate.
    """

    x: float
    values: tuple[float, ...]
    setting: str = ""


@dataclass(frozen=True)
class Curve:
    """One method.

    Attributes:
        name: in the legend.
        size: of the method, such as its parameters, below its name.
        points: by growing ``x``.
        reference: known in advance rather than measured; drawn as a thin dotted line.
    """

    name: str
    size: str
    points: tuple[Point, ...]
    reference: bool = False


@dataclass(frozen=True)
class Panel:
    """One of the plots in the figure, which are drawn side by side."""

    title: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Outcome:
    """What an experiment found.

    Attributes:
        panels: one or more, with one quantity on both axes.
        across: the horizontal axis, in words.
        upward: the vertical axis, in words.
        caption: what a reader has to know, below the plot.
        notes: further remarks, in the text file.
    """

    panels: Sequence[Panel]
    across: str
    upward: str
    caption: str
    notes: Sequence[str] = ()


class Experiment(ABC):
    """An experiment. Subclass, set the class attributes, register it.

    Class attributes:
        name: the registered name, which its files have too.
        title: what it shows, in one line.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def run(self, conditions: Conditions) -> Outcome:
        """Compute everything.

        Raises:
            BenchError: it cannot be done here; the message says why.
        """
