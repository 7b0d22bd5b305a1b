"""Recount the papers' parameter shares: every row of every shipped table's paper profile.

Nothing is downloaded and no weights are allocated: models are on the meta device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel
from rich.console import Group, RenderableType
from rich.text import Text

from quanta_bench.costs.plan import share
from quanta_bench.models.meta import Counts
from quanta_bench.suites.grid import grid
from quanta_bench.suites.loading import load_suite, shipped
from quanta_bench.suites.schema import Suite
from quanta_bench.utils.fitted_table import FittedTable

PROFILE = "paper"
ACCEPTED = ("agrees", "known-ambiguous", "")
"""Verdicts that need no attention; the empty one belongs to rows without a printed share."""


class AuditRow(BaseModel):
    """One row of a paper's table.

    Attributes:
        table: the suite's name.
        model: the model's name.
        label: the row's name.
        method: registered name of the method.
        trainable: trainable parameters; ``None`` if they could not be counted.
        percent: their share in percent.
        percent_of: the denominator: ``base``, ``base+added``, or the label of another row.
        printed: the share as printed in the paper.
        verdict: see :class:`quanta_bench.costs.plan.Share`.
        reason: why the share cannot be reproduced or counted.
    """

    table: str
    model: str
    label: str
    method: str
    trainable: int | None
    percent: float | None
    percent_of: str
    printed: str
    verdict: str
    reason: str


class Audit(BaseModel):
    """All rows, and the number of distinct ones.

    Attributes:
        titles: the suites' titles, by name.
        rows: the rows in the suites' order.
        counted: number of distinct combinations of model, method and settings; tables repeat rows.
    """

    titles: dict[str, str]
    rows: list[AuditRow]
    counted: int

    @property
    def passes(self) -> bool:
        """Whether every printed share is reproduced or known to be ambiguous."""
        return all(row.verdict in ACCEPTED for row in self.rows)

    @property
    def summary(self) -> str:
        """The verdicts in one line."""
        verdicts = Counter(row.verdict or "without a printed share" for row in self.rows)
        parts = [f"{verdict}: {count}" for verdict, count in verdicts.most_common()]
        return f"{len(self.rows)} rows, {self.counted} of them distinct; {', '.join(parts)}."


def audit(suites: Iterable[Suite] | None = None) -> Audit:
    """Count every row and compare its share with the printed one.

    Args:
        suites: the suites; by default all shipped tables. Suites without a paper profile are
            skipped.
    """
    if suites is None:
        # The published tables first, in the order of their numbers.
        known = [suite for suite in map(load_suite, shipped()) if suite.figure is None]
        suites = sorted(known, key=lambda suite: not suite.published)
    selected = [suite for suite in suites if PROFILE in suite.profiles]
    counts = Counts()
    rows = []
    for suite in selected:
        default_model = suite.profiles[PROFILE].model
        for row in grid(suite, PROFILE):
            counted = share(row, counts)
            rows.append(
                AuditRow(
                    table=suite.name,
                    model=row.spec.model or default_model,
                    label=row.spec.label or row.spec.method,
                    method=row.spec.method,
                    trainable=counted.trainable,
                    percent=counted.percent,
                    percent_of=counted.percent_of,
                    printed=row.spec.printed,
                    verdict=counted.verdict,
                    reason=counted.reason,
                )
            )
    return Audit(
        titles={suite.name: suite.title for suite in selected}, rows=rows, counted=len(counts)
    )


def on_screen(result: Audit) -> RenderableType:
    """A table per suite, the reasons as numbered notes, and the summary."""
    parts: list[RenderableType] = []
    notes: dict[str, int] = {}
    for name, title in result.titles.items():
        table = FittedTable(title)
        for heading in ("Model", "Row", "Trained", "%", "of", "Printed", "Verdict"):
            table.add_column(
                heading,
                right=heading in ("Trained", "%"),
                label=heading in ("Model", "Row"),
                prose=heading in ("of", "Verdict"),
            )
        for row in result.rows:
            if row.table != name:
                continue
            note = notes.setdefault(row.reason, len(notes) + 1) if row.reason else 0
            table.add_row(
                row.model,
                row.label,
                "–" if row.trainable is None else f"{row.trainable:,}",
                "–" if row.percent is None else f"{row.percent:.4g}",
                row.percent_of or "–",
                row.printed or "–",
                (row.verdict or "–") + (f" ({note})" if note else ""),
            )
        parts += [table, Text()]
    parts += [Text(f"({number}) {reason}") for reason, number in notes.items()]
    return Group(*parts, Text(result.summary, style="bold"))
