"""The benchmark interface: sides that do the same work, their samples, and the findings.

A benchmark plug-in imports this module and :mod:`quanta_bench.timing`, and little else of the
suite. It is a subclass of :class:`Benchmark`, registered in the entry-point group
``quanta_bench.benchmarks``::

    class Sums(Benchmark):
        name = "sums"
        title = "A built-in sum against a loop"

        def run(self, conditions: Conditions) -> Outcome:
            builtin, loop = interleave(
                {"sum": lambda: sum(range(1000)), "loop": by_hand},
                rounds=conditions.choose(50, quick=10),
            )
            ratio = time_ratio(builtin, loop, target=at_most(0.5))
            return Outcome(cases=[Case(title="1,000", sides=[builtin, loop], findings=[ratio])])

The command runs each benchmark in its own process, and all its sides in that one process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from quanta_bench.errors import BenchError, UsageError
from quanta_bench.utils.extent import Extent, say_nothing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "BenchError",
    "Benchmark",
    "Case",
    "Conditions",
    "Finding",
    "Outcome",
    "Side",
    "Target",
    "UsageError",
    "at_least",
    "at_most",
]


class Record(BaseModel):
    """Base class of the records that a benchmark returns; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


class Target(Record):
    """A bound that a number should satisfy; equality counts.

    Attributes:
        at: whether the number should be at most or at least the bound.
        bound: the bound.
    """

    at: Literal["most", "least"]
    bound: float

    def met(self, value: float) -> bool:
        """Whether a number satisfies the bound; NaN never does."""
        return value <= self.bound if self.at == "most" else value >= self.bound

    def __str__(self) -> str:
        return f"at {self.at} {self.bound:g}"


def at_most(bound: float) -> Target:
    """A target that smaller numbers meet."""
    return Target(at="most", bound=bound)


def at_least(bound: float) -> Target:
    """A target that larger numbers meet."""
    return Target(at="least", bound=bound)


class Side(Record):
    """One of the alternatives compared, with all its measurements.

    Attributes:
        name: a short name, such as ``"LoRA r=8"``.
        seconds: wall time of each sample, in the order of rounds. Interleaved sides have equally
            many, and the same index is the same round.
        work: the amount of work in each sample, in ``unit``: one number per sample, or none if
            every sample did the same work and its amount does not matter.
        unit: the unit of work: ``"tokens"``, ``"items"``.
        peak_bytes: peak memory above that in use beforehand; ``None`` if not measured.
    """

    name: str
    seconds: list[float] = []
    work: list[float] = []
    unit: str = ""
    peak_bytes: int | None = None

    @model_validator(mode="after")
    def _work_of_every_sample(self) -> Side:
        if self.work and len(self.work) != len(self.seconds):
            raise ValueError(
                f"{self.name}: {len(self.work)} amounts of work, {len(self.seconds)} samples"
            )
        return self


class Finding(Record):
    """A result of a case: a ratio of two sides, or a difference between their results.

    Attributes:
        title: what it measures, such as ``"time, ours / LoRA r=8"``.
        value: the value.
        low: lower end of its interval; ``None`` if it has none.
        high: upper end.
        target: the bound that it should satisfy; ``None`` if it is only informative.
        ratio: whether it is a ratio, which the plot shows.
    """

    title: str
    value: float
    low: float | None = None
    high: float | None = None
    target: Target | None = None
    ratio: bool = True

    @property
    def met(self) -> bool | None:
        """Whether its target is met; ``None`` without a target."""
        return None if self.target is None else self.target.met(self.value)


class Case(Record):
    """One condition under which the sides were compared.

    Attributes:
        title: the condition, such as ``"576, 9-8-8, bfloat16"``.
        sides: the alternatives.
        findings: the results.
        notes: what a reader has to know to interpret them.
        setting: the condition as numbers, for the benchmark's own plot.
    """

    title: str
    setting: dict[str, float] = {}
    sides: list[Side] = []
    findings: list[Finding] = []
    notes: list[str] = []


class Outcome(Record):
    """A benchmark's results.

    Attributes:
        cases: one or more.
        notes: notes on all of them.
    """

    cases: list[Case] = Field(min_length=1)
    notes: list[str] = []


@dataclass(frozen=True)
class Conditions(Extent):
    """How to run a benchmark.

    Attributes:
        quick: fewer rounds, cases and items: minutes for all benchmarks together instead of half
            an hour.
        model: the base model of benchmarks that need one: ``smollm2-135m``,
            ``hub:NAME@REVISION`` or ``local:DIR``.
        source: the data source of such benchmarks: ``embedded``, ``hub`` or
            ``local:DIR``.
        device: ``cpu`` or ``cuda``. On ``cpu`` the benchmark's process sees no GPU.
        tell: called with progress messages.
    """

    model: str = "smollm2-135m"
    source: str = "embedded"
    device: Literal["cpu", "cuda"] = "cpu"
    tell: Callable[[str], None] = say_nothing


class Benchmark(ABC):
    """A comparison. Subclass it, set the class attributes, and register the subclass.

    Class attributes:
        name: the registered name.
        title: what is compared with what, in one line.
        needs: required packages, by distribution name.
        reads: whether it reads the model and data of its conditions, which are then fetched first.
        place: sort key: benchmarks are run and reported by this number, then by name.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[bool] = False
    place: ClassVar[int] = 50

    @abstractmethod
    def run(self, conditions: Conditions) -> Outcome:
        """Run the comparison, in a process that does nothing else.

        Raises:
            BenchError: it cannot run here; the message says why. Other benchmarks still run.
        """

    def draw(self, outcome: Outcome) -> Figure | None:
        """The benchmark's own plot, in addition to the one of all ratios; ``None`` for none."""
        return None
