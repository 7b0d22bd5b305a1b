"""What a shell can complete in the values of options, as names that begin with what is typed.

Nothing is imported that takes longer than a key press: names of plug-ins come from their entry
points.
"""

from __future__ import annotations

from collections.abc import Iterable


def _beginning(typed: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(typed)]


def methods(incomplete: str) -> list[str]:
    """Names of methods."""
    from quanta_bench.plugins import METHODS

    return _beginning(incomplete, METHODS.names())


def method_list(incomplete: str) -> list[str]:
    """Names of methods separated by commas, of which the last is completed."""
    before, comma, last = incomplete.rpartition(",")
    plus = "+" * last.startswith("+")
    return [f"{before}{comma}{plus}{name}" for name in methods(last.removeprefix("+"))]


def tasks(incomplete: str) -> list[str]:
    """Names of tasks."""
    from quanta_bench.plugins import TASKS

    return _beginning(incomplete, TASKS.names())


def tables(incomplete: str) -> list[str]:
    """Names of tables and figures that are shipped."""
    from quanta_bench.report.appendix import TABLES
    from quanta_bench.suites.loading import shipped

    return _beginning(incomplete, [*shipped(), *TABLES])


def profiles(incomplete: str) -> list[str]:
    """Names of the profiles of shipped suites."""
    from quanta_bench.suites.loading import load_suite, shipped

    names = {name for suite in shipped() for name in load_suite(suite).profiles}
    return _beginning(incomplete, sorted(names))


def loggers(incomplete: str) -> list[str]:
    """Names of loggers."""
    from quanta_bench.training.loggers import PACKAGES

    return _beginning(incomplete, PACKAGES)
