"""``quanta-bench verify``: check what theorems say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from quanta_bench.cli.options import Json, examples

if TYPE_CHECKING:
    from quanta_bench.verification import Finding, Outcome, Verification

EXAMPLES = examples(
    "quanta-bench verify --quick",
    "quanta-bench verify ranks universality --seed 1",
    "quanta-bench verify --list",
)


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Checks to run; all of them by default.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="In seconds: fewer and smaller cases.")
    ] = False,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of the random cases.")
    ] = 0,
    only_list: Annotated[
        bool, typer.Option("--list", help="List the registered checks and run none.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the theorems behind the methods on many cases.

    The exit status is 1 if a check fails.
    """
    from quanta_bench.cli import console, output
    from quanta_bench.plugins import VERIFICATIONS
    from quanta_bench.utils.quiet import settle_libraries
    from quanta_bench.verification import Conditions

    chosen = [VERIFICATIONS.get(name) for name in dict.fromkeys(names or VERIFICATIONS.names())]
    chosen.sort(key=lambda check: (check.place, check.name))
    if only_list:
        rows = [{"name": c.name, "title": c.title, "source": c.source} for c in chosen]
        output.show(rows, _table(rows), as_json=as_json)
        return
    settle_libraries()
    conditions = Conditions(quick=quick, seed=seed)
    records, notes, failed = [], [], []
    for check in chosen:
        with console.working(f"{check.name}: {check.title}"):
            outcome, reason = _run(check, conditions)
        if reason:
            notes.append(f"{check.name}: {reason}")
        if outcome is None or not outcome.passed:
            failed.append(check.name)
        if outcome is not None:
            notes += [f"{check.name}: {note}" for note in outcome.notes]
        records.append(_record(check, outcome, reason))
    rows = [row for record in records for row in _rows(record)]
    output.show(records, _table(rows), as_json=as_json)
    if not as_json:
        screen = console.console()
        for note in notes:
            screen.print(note, highlight=False)
        passed = len(chosen) - len(failed)
        screen.print(f"{passed} of {len(chosen)} checks passed (seed {seed}).", highlight=False)
    if failed:
        raise typer.Exit(1)


def _run(check: type[Verification], conditions: Any) -> tuple[Outcome | None, str]:
    """What a check found, or why it could not be run."""
    from quanta_bench.errors import BenchError

    try:
        return check().run(conditions), ""
    except BenchError as error:
        return None, str(error)


def _record(check: type[Verification], outcome: Outcome | None, reason: str) -> dict[str, Any]:
    return {
        "name": check.name,
        "title": check.title,
        "source": check.source,
        "passed": outcome is not None and outcome.passed,
        "reason": reason,
        "findings": [_finding(one) for one in outcome.findings] if outcome else [],
        "notes": list(outcome.notes) if outcome else [],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "title": finding.title,
        "cases": finding.cases,
        # JSON has no NaN.
        "deviation": float(finding.deviation) if finding.deviation == finding.deviation else None,
        "allowed": float(finding.allowed),
        "passed": bool(finding.passed),
    }


def _rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A record as lines of the table, a finding each."""
    found = record["findings"] or [
        {"title": "could not be run", "cases": 0, "deviation": None, "allowed": None}
    ]
    return [
        {
            "check": record["name"],
            "source": record["source"],
            "largest deviation of": one["title"],
            "cases": one["cases"],
            "deviation": "–" if one["deviation"] is None else f"{one['deviation']:.2g}",
            "allowed": "–" if one["allowed"] is None else f"{one['allowed']:.2g}",
            "result": "pass" if one.get("passed") else "FAIL",
        }
        for one in found
    ]


def _table(rows: list[dict[str, Any]]) -> Any:
    from quanta_bench.utils.fitted_table import FittedTable

    table = FittedTable()
    numbers = ("cases", "deviation", "allowed")
    for key in rows[0]:
        short = key in (*numbers, "check", "name", "result")
        table.add_column(key, right=key in numbers, label=key in ("check", "name"), prose=not short)
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()))
    return table
