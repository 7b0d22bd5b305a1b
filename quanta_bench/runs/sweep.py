"""Many runs: every job of a grid, one after another or several at once, none ever repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console, RenderableType
from rich.text import Text

from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError, UsageError
from quanta_bench.models.precision import fast_dtype
from quanta_bench.results.integrity import NewerSchemaError
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.availability import without_absent
from quanta_bench.runs.cells import Cells, jobs_of
from quanta_bench.runs.concurrency import Machine, runs_at_once, this_machine, threads_each
from quanta_bench.runs.estimates import Pace, memory, work
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.runs.progress import RunLine, Screen, Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.worker import Setting
from quanta_bench.runs.worker_pool import Ahead, Crew
from quanta_bench.spec import Job
from quanta_bench.suites.grid import GridRow

Fresh = Literal["", "all", "stale"]
"""Which runs to compute again though they are on disk."""


def sweep(
    rows: Sequence[GridRow],
    store: Store,
    console: Console,
    draw: Callable[[list[Cells]], RenderableType],
    *,
    fresh: Fresh = "",
    at_once: int | None = 1,
) -> tuple[list[Cells], list[str]]:
    """Compute whatever of a grid is not on disk yet.

    Runs go seed by seed over all rows, so that a table is filled with one seed before any row
    gets its second; several at once start so too, the longest of a seed first. A task that the
    source does not have is left out.

    Args:
        rows: the grid; rows that cannot run in this version stay empty.
        store: where results are and go.
        console: where progress is shown.
        draw: draws the table from what is there.
        fresh: which runs to compute again: ``"all"``, or ``"stale"``, those that other code than
            the present computed.
        at_once: how many runs to compute at once, each in a process of its own; one is computed in
            this process. ``None`` goes by :func:`quanta_bench.runs.concurrency.runs_at_once`.

    Returns:
        The rows with their results, and a message for each run that failed.

    Raises:
        UsageError: the words of a row are off; before any data are read if its protocol is.
        SourceError: the source has none of the tasks, or not what is trained on.
        KeyboardInterrupt: the user stopped. What was finished stays.
    """
    pools = Pools()
    runner = Runner(store, Silent(), pools)
    for row in rows:
        for _, job in [] if row.missing else jobs_of(row):
            PlannedRun.of(job)
    console.print("Reading data and looking for finished runs.", style="dim")
    with _started_ahead(rows, store, fresh == "all", at_once) as ahead:
        return _sweep(rows, runner, ahead, console, draw, fresh, at_once)


def _sweep(
    rows: Sequence[GridRow],
    runner: Runner,
    ahead: Ahead,
    console: Console,
    draw: Callable[[list[Cells]], RenderableType],
    fresh: Fresh,
    at_once: int | None,
) -> tuple[list[Cells], list[str]]:
    pools = runner.pools
    cells = [Cells(row, {}) for row in without_absent(rows, pools)]
    # Rows that come to the same run, as on one small model in place of several, share it.
    wanted: dict[str, _Wanted] = {}
    finished: list[tuple[Job, Result]] = []
    failed: list[str] = []
    for cell in cells:
        if cell.row.missing:
            continue
        for seed, job in jobs_of(cell.row):
            name = _name(cell.row, seed, job)
            try:
                done = None if fresh == "all" else runner.find(job)
            except NewerSchemaError as error:
                failed.append(f"{name}: {error}")
                continue
            again = fresh == "all" or (fresh == "stale" and runner.is_stale(job, done))
            if done is None or again:
                run = wanted.setdefault(PlannedRun.of(job).key, _Wanted(name, seed, job, [], again))
                run.places.append((cell, seed))
            else:
                cell.results.setdefault(seed, []).append(done)
                finished.append((job, done))
    for notice in runner.store.notices:
        console.print(Text(notice))
    if not wanted:
        return cells, failed
    order = sorted(wanted.values(), key=lambda run: run.seed)
    for run in order:
        run.work = work(run.job, pools)
    pace = Pace()
    for job, result in finished:
        pace.note(job.label, work(job, pools), result)
    together = _Together.chosen(order, at_once)
    with Screen(console, [run.work for run in order], lambda: draw(cells)) as screen:
        if together.jobs == 1:
            ahead.close()
            _compute_here(order, runner, screen, failed)
        else:
            console.print(together.said(), style="dim", highlight=False)
            _compute_beside(order, together, ahead, pace, runner.store, screen, failed)
    return cells, failed


def _started_ahead(
    rows: Sequence[GridRow], store: Store, fresh: bool, at_once: int | None
) -> Ahead:
    """Workers for as many runs as will be computed at once if none is done yet.

    None are started where some are done, for all may be; nor for a GPU, which workers share out.
    """
    every = {
        PlannedRun.of(job).key: _Wanted("", seed, job, [])
        for row in rows
        if not row.missing
        for seed, job in jobs_of(row)
    }
    if not every or (not fresh and store.runs()):
        return Ahead(0, 1)
    together = _Together.chosen(list(every.values()), at_once)
    alone = together.jobs == 1 or together.machine.gpus
    return Ahead(0 if alone else together.jobs, together.threads)


@dataclass
class _Wanted:
    """A run that is to be computed, afresh if it was before, and where its result goes."""

    name: str
    seed: int
    job: Job
    places: list[tuple[Cells, int]]
    fresh: bool = False
    work: float = 1.0

    def place(self, result: Result) -> None:
        for cell, seed in self.places:
            cell.results.setdefault(seed, []).append(result)


def _name(row: GridRow, seed: int, job: Job) -> str:
    name = job.label + (f", seed {seed}" if len(row.seeds) > 1 else "")
    return name + (f", {', '.join(job.evaluation.tasks)}" if row.parts > 1 else "")


def _compute_here(
    order: Sequence[_Wanted], runner: Runner, screen: Screen, failed: list[str]
) -> None:
    """One run after another, in this process."""
    for run in order:
        line = runner.reporter = screen.begin(run.name, run.work)
        try:
            result = runner.run(run.job, fresh=run.fresh)
        except UsageError as error:
            raise UsageError(f"{run.name}: {error}") from error
        except (BenchError, RuntimeError, MemoryError) as error:
            # The other rows are worth having all the same.
            failed.append(f"{run.name}: {error}")
            line.fail()
            continue
        run.place(result)
        line.finish()


@dataclass(frozen=True)
class _Together:
    """How runs are computed at once.

    Attributes:
        batches: numbers of the runs, those that score one training together: seed by seed, and
            within a seed those of most work first.
        jobs: how many batches are computed at once.
        threads: processor threads of each.
        machine: the machine.
    """

    batches: list[list[int]]
    jobs: int
    threads: int
    machine: Machine

    @classmethod
    def chosen(cls, order: Sequence[_Wanted], at_once: int | None) -> _Together:
        import torch

        groups: dict[str, list[int]] = {}
        for number, run in enumerate(order):
            groups.setdefault(PlannedRun.of(run.job).training_key, []).append(number)
        batches = sorted(
            groups.values(),
            key=lambda batch: (order[batch[0]].seed, -sum(order[n].work for n in batch)),
        )
        machine = this_machine()
        if at_once is None:
            alone = len(batches) == 1 or machine.gpus or machine.cores == 1
            needs = [None if alone else memory(order[batch[0]].job) for batch in batches]
            jobs = runs_at_once(machine, needs)
        else:
            jobs = min(at_once, len(batches))
        threads = threads_each(machine.cores, jobs, torch.get_num_threads())
        return cls(batches, jobs, threads, machine)

    def said(self) -> str:
        each = "one thread each" if self.threads == 1 else f"{self.threads} threads each"
        return f"Computing {self.jobs} runs at a time, {each} (--jobs 1 for one after another)."


def _compute_beside(
    order: Sequence[_Wanted],
    together: _Together,
    ahead: Ahead,
    pace: Pace,
    store: Store,
    screen: Screen,
    failed: list[str],
) -> None:
    """Several runs at once, in processes beside this one."""
    device = "cuda" if together.machine.gpus else "cpu"
    dtype = str(fast_dtype(device)).removeprefix("torch.")
    setting = Setting(str(store.root.absolute()), together.jobs, together.threads, {device: dtype})
    lines: dict[int, RunLine] = {}

    def rank(batch: Sequence[int]) -> tuple[int, float]:
        """Seed by seed; the longest first, for a long run that starts last keeps a core waiting."""
        runs = [order[number] for number in batch]
        return runs[0].seed, -sum(pace.seconds(run.job.label, run.work) for run in runs)

    gpus = together.machine.gpus
    with Crew(together.jobs, setting, ahead=ahead, gpus=gpus, tell=screen.tell) as crew:
        jobs = [run.job for run in order]
        again = {number for number, run in enumerate(order) if run.fresh}
        for event in crew.compute(jobs, together.batches, rank=rank, fresh=again):
            run = order[event.run]
            if event.kind == "begun":
                lines[event.run] = screen.begin(run.name, run.work)
            elif event.kind == "refused":
                raise UsageError(f"{run.name}: {event.words[0]}")
            elif event.kind == "failed":
                failed.append(f"{run.name}: {event.words[0]}")
                lines.pop(event.run).fail()
            elif event.kind == "done":
                result = store.result(event.words[0])
                if result is None:
                    raise BenchError(f"The result of {run.name} is not where it was written.")
                run.place(result)
                pace.note(run.job.label, run.work, result)
                lines.pop(event.run).finish()
            else:
                getattr(lines[event.run], event.kind)(*event.words)
