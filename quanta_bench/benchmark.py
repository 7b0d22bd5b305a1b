"""The interface of a benchmark: sides that do the same work, what was timed, and what follows.

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

The command runs each benchmark in a process of its own, and all its sides in that one process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from quanta_bench.errors import BenchError, UsageError

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

T = TypeVar("T")


class Record(BaseModel):
    """Base of what a benchmark returns and the command writes; closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


class Target(Record):
    """What a number is meant to be, bound included.

    Attributes:
        at: whether the number is to be at most or at least the bound.
        bound: the bound.
    """

    at: Literal["most", "least"]
    bound: float

    def met(self, value: float) -> bool:
        """Whether a number is what it is meant to be; NaN never is."""
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
    """One of the things compared, with everything that was measured of it.

    Attributes:
        name: what it is, in few words: ``"LoRA r=8"``.
        seconds: wall time of each sample, in the order of rounds; the sides of a case that were
            interleaved have equally many, and the same place is the same round.
        work: how much each sample did, in ``unit``; as many as ``seconds``, or none where every
            sample did the same and its amount does not matter.
        unit: of the work: ``"tokens"``, ``"items"``.
        peak_bytes: largest memory above what was there before it began, where it was measured.
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
    """A number that a case shows: a ratio of two sides, or a difference between their results.

    Attributes:
        title: what it is: ``"time, ours / LoRA r=8"``.
        value: the number.
        low: lower end of its interval; ``None`` where it has none.
        high: upper end.
        target: what it is meant to be; ``None`` where it is only to be known.
        ratio: whether it is a ratio, which has a place in the picture.
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
    """One setting in which the sides were compared.

    Attributes:
        title: the setting: ``"576, 9-8-8, bfloat16"``.
        sides: what was compared.
        findings: what follows.
        notes: what a reader has to know to read them.
        setting: the setting as numbers, for a picture of the benchmark's own.
    """

    title: str
    setting: dict[str, float] = {}
    sides: list[Side] = []
    findings: list[Finding] = []
    notes: list[str] = []


class Outcome(Record):
    """What a benchmark found.

    Attributes:
        cases: one or more.
        notes: what holds for all of them.
    """

    cases: list[Case] = Field(min_length=1)
    notes: list[str] = []


def _say_nothing(text: str) -> None:
    """Progress that nobody reads."""


@dataclass(frozen=True)
class Conditions:
    """How a benchmark is to run.

    Attributes:
        quick: two minutes for all benchmarks together rather than twenty: fewer rounds, cases and
            items.
        model: the base model of benchmarks that need one: ``smollm2-135m``,
            ``hub:NAME@REVISION`` or ``local:DIR``.
        source: where the data of such benchmarks come from: ``embedded``, ``hub`` or
            ``local:DIR``.
        tell: called with a line of progress now and then.
    """

    quick: bool = False
    model: str = "smollm2-135m"
    source: str = "embedded"
    tell: Callable[[str], None] = _say_nothing

    def choose(self, full: T, quick: T) -> T:
        """One of two sizes, rounds or lists of cases, as the conditions are."""
        return quick if self.quick else full


class Benchmark(ABC):
    """A comparison. Subclass, set the class attributes, register it.

    Class attributes:
        name: the registered name.
        title: what is compared with what, in one line.
        needs: packages, by the names that they are installed by, without which it cannot run.
        reads: whether it reads the model and the data of its conditions; they are fetched first.
        place: benchmarks run, and stand in the report, by this number and then by name.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[bool] = False
    place: ClassVar[int] = 50

    @abstractmethod
    def run(self, conditions: Conditions) -> Outcome:
        """Compare, in a process that does nothing else.

        Raises:
            BenchError: it cannot be done here; the message says why. The other benchmarks go on.
        """

    def draw(self, outcome: Outcome) -> Figure | None:
        """A picture of the benchmark's own, beside the one that shows every ratio."""
        return None
