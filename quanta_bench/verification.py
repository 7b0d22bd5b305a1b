"""The interface of a check: a statement of a paper, tried on many cases.

A check plug-in imports this module and little else of the suite. It is a subclass of
:class:`Verification`, registered in the entry-point group ``quanta_bench.verifications``::

    class Symmetric(Verification):
        name = "symmetric"
        title = "A product with its own transpose is symmetric"
        source = "any textbook"

        def run(self, conditions: Conditions) -> Outcome:
            generator = numpy.random.default_rng(conditions.seed)
            worst = 0.0
            for _ in range(conditions.choose(100, quick=10)):
                a = generator.standard_normal((4, 4))
                worst = max(worst, abs(a @ a.T - (a @ a.T).T).max())
            return Outcome([Finding("A A^T", cases=100, deviation=worst, allowed=1e-12)])
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from quanta_bench.errors import BenchError, UsageError
from quanta_bench.utils.extent import Extent

__all__ = ["BenchError", "Conditions", "Finding", "Outcome", "UsageError", "Verification"]


@dataclass(frozen=True)
class Conditions(Extent):
    """How a check is to run.

    Attributes:
        quick: a few seconds for all checks together, so fewer and smaller cases.
        seed: of whatever is drawn at random; the same seed gives the same cases.
    """

    seed: int = 0


@dataclass(frozen=True)
class Finding:
    """One part of a statement, and how far the cases were from it.

    Attributes:
        title: what was tried, in few words.
        cases: how many cases were tried.
        deviation: the largest over all cases, in whatever the title says; 0 where only a bound
            is stated and all cases keep it.
        allowed: the largest deviation that passes.
    """

    title: str
    cases: int
    deviation: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether there were cases, and all are near enough; NaN never is."""
        return self.cases > 0 and self.deviation <= self.allowed


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes:
        findings: one or more; the check passes if all of them do.
        notes: what a reader has to know besides.
    """

    findings: Sequence[Finding]
    notes: Sequence[str] = ()

    @property
    def passed(self) -> bool:
        """Whether there are findings, and all passed."""
        return bool(self.findings) and all(finding.passed for finding in self.findings)


class Verification(ABC):
    """A check. Subclass, set the class attributes, register it.

    Class attributes:
        name: the registered name.
        title: the statement, in one line.
        source: where it is made: paper and theorem.
        place: checks run and are listed by this number, then by name.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    place: ClassVar[int] = 50

    @abstractmethod
    def run(self, conditions: Conditions) -> Outcome:
        """Try the statement.

        Raises:
            BenchError: it cannot be tried here; the message says why. The check then fails, and
                the others go on.
        """
