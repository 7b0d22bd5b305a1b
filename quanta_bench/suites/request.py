"""A request: one profile of a suite, its selected rows, and their jobs."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePath

from quanta_bench.errors import UsageError
from quanta_bench.spec import ModelSpec
from quanta_bench.suites import loading
from quanta_bench.suites.choice import NO_CHOICE, Choice
from quanta_bench.suites.compatibility import (
    check_columns,
    check_metrics,
    without_mixed_average,
)
from quanta_bench.suites.grid import GridRow, chosen_profile, grid
from quanta_bench.suites.schema import Profile, Suite


@dataclass(frozen=True)
class Request:
    """A suite with everything chosen.

    Attributes:
        suite: the suite, with the profile's own tasks, columns and averages.
        profile_name: the profile's name.
        profile: the profile, without its notes on its own model and data if the user named
            others, and with a note for each row that was changed to fit.
        size: the size by name, or empty for the profile's default.
        grid: the rows with their jobs.
        model: the user's model in place of the suite's, or empty.
    """

    suite: Suite
    profile_name: str
    profile: Profile
    size: str
    grid: list[GridRow]
    model: str = ""

    @property
    def file_name(self) -> str:
        """The name of the table's files, without a suffix: ``table3-full``.

        A size or a model of the user's choice does not overwrite the files of the default one.
        """
        size = "" if self.size == self.profile.size else self.size
        model = "" if self.model == self.profile.model else _short_name(self.model)
        return "-".join(filter(None, (self.suite.name, size, model)))

    @classmethod
    def of(cls, suite: Suite, profile_name: str, choice: Choice = NO_CHOICE) -> Request:
        """Choose from a suite.

        Args:
            suite: the suite as its file has it.
            profile_name: the profile's name.
            choice: what the user selects and overrides.

        Raises:
            UsageError: there is no such profile, row, setting or metric.
        """
        profile = chosen_profile(suite, profile_name, choice)
        if choice.model or choice.source:
            # The suite's notes on its own model and data do not apply to others.
            profile = profile.model_copy(update={"about": "", "notes": ()})
        suite = suite.as_in(profile)
        rows = grid(suite, profile_name, choice)
        evaluations = [scored for row in rows for _, scored in row.jobs]
        check_metrics(suite.shown_columns, evaluations)
        check_columns(suite, evaluations)
        suite = without_mixed_average(suite)
        notes = tuple(row.note for row in rows if row.note)
        profile = profile.model_copy(update={"notes": (*profile.notes, *notes)})
        return cls(suite, profile_name, profile, choice.size, rows, choice.model)


def _short_name(model: str) -> str:
    """``Llama-3.2-1B`` of ``hub:meta-llama/Llama-3.2-1B@main``; of a folder its own name."""
    name = PurePath(ModelSpec.from_reference(model).title).name
    return re.sub(r"[^\w.-]+", "-", name)[:60].strip("-.")


def make_request(
    name: str,
    kind: str,
    profile: str,
    choice: Choice,
    *,
    check: bool,
    others: Collection[str] = (),
) -> Request:
    """Choose from a suite.

    Args:
        name: the suite: a number, a name or the path of a file.
        kind: ``table`` or ``figure``; empty for either, a number alone then means a table.
        profile: the profile's name.
        choice: what the user selects and overrides.
        check: refuse a suite with a task that is not registered.
        others: names of the kind that are no suites, which a message lists too.

    Raises:
        UsageError: there is no such suite, profile, row or metric, or the suite is of the other
            kind.
    """
    suite = loading.load_suite(name, kind, others)
    if kind and kind != suite.kind:
        raise UsageError(f"{suite.name} is a {suite.kind}: quanta-bench {suite.kind} {name}")
    if check:
        loading.check_tasks(suite)
    return Request.of(suite, profile, choice)
