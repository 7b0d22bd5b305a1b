"""What a user asks of a suite: a profile of it, the rows that are kept, their jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quanta_bench.errors import UsageError
from quanta_bench.spec import sources_of
from quanta_bench.suites import grid as suites
from quanta_bench.suites.columns import check_metrics
from quanta_bench.suites.grid import Choice, GridRow
from quanta_bench.suites.schema import Profile, Suite

if TYPE_CHECKING:
    from quanta_bench.costs.plan import Plan
    from quanta_bench.report.tables import Table
    from quanta_bench.results.store import Store
    from quanta_bench.runs.sweep import Cells


@dataclass(frozen=True)
class Request:
    """A suite with everything chosen.

    Attributes:
        suite: the suite, with the profile's own tasks, columns and averages.
        profile_name: the profile's name.
        profile: the profile; without what it says of its own model and data if the user named
            others.
        size: the size by name, or empty for the profile's default.
        grid: the rows with their jobs.
    """

    suite: Suite
    profile_name: str
    profile: Profile
    size: str
    grid: list[GridRow]

    @property
    def sources(self) -> list[str]:
        """Every source that the runs read from."""
        return sorted({name for row in self.grid for job in row.jobs for name in sources_of(*job)})

    def plan(self, gpu: str = "") -> Plan:
        """What would run, and what it would cost on a GPU."""
        from quanta_bench.costs import plan

        return plan.make_plan(
            self.suite, self.profile_name, self.profile, self.grid, self.size, gpu
        )

    def table(self, cells: Sequence[Cells], store: Store) -> Table:
        """The results as a table, as far as they are there."""
        from quanta_bench.report.tables import make_table

        return make_table(self.suite, self.profile_name, self.profile, self.size, cells, store)


def make_request(name: str, kind: str, profile: str, choice: Choice, *, check: bool) -> Request:
    """Choose from a suite.

    Args:
        name: the suite: a number, a name or the path of a file.
        kind: ``table`` or ``figure``.
        profile: the profile's name.
        choice: what the user selects and overrides.
        check: refuse a suite whose tasks are not all there.

    Raises:
        UsageError: there is no such suite, profile, row or metric, or the suite is of the other
            kind.
    """
    suite = suites.load_suite(name, kind)
    other = "table" if suite.figure is None else "figure"
    if kind != other:
        raise UsageError(f"{suite.name} is a {other}: quanta-bench {other} {name}")
    if check:
        suites.check_tasks(suite)
    chosen = suites.pick_profile(suite, profile)
    if choice.model or choice.source:
        # What the suite says of its own model and data does not hold for others.
        chosen = chosen.model_copy(update={"about": "", "notes": ()})
    suite = suite.as_in(chosen)
    grid = suites.grid(suite, profile, choice)
    check_metrics(suite.shown_columns, (scored for row in grid for _, scored in row.jobs))
    return Request(suite, profile, chosen, choice.size, grid)
