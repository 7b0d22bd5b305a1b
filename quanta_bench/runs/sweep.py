"""Compute a grid: plan its runs, find the finished ones, compute the rest, fill the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from rich.console import Console, RenderableType
from rich.text import Text

from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError, RunKilledError, StorageError, UsageError
from quanta_bench.models.precision import dtype_name, fast_dtype
from quanta_bench.results.integrity import NewerSchemaError
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs import together
from quanta_bench.runs.availability import without_absent
from quanta_bench.runs.cells import Cells
from quanta_bench.runs.claims import (
    AGAIN,
    Claims,
    Observer,
    compute_all,
    is_worth_retrying,
)
from quanta_bench.runs.devices import ONE, Devices
from quanta_bench.runs.estimates import DurationEstimator, work
from quanta_bench.runs.identity import PlannedRow, PlannedRun
from quanta_bench.runs.progress import RunLine, Screen, Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.schedule import PendingRun, Schedule, rank
from quanta_bench.runs.spreading import runner_for
from quanta_bench.runs.worker import ItemsScored, ScoringStarted, TrainingStep, WorkerSettings
from quanta_bench.runs.worker_pool import (
    PoolWaits,
    RunFailed,
    RunFinished,
    RunPostponed,
    RunProgressed,
    RunStarted,
    WorkerPool,
)
from quanta_bench.suites.grid import GridRow
from quanta_bench.utils.quiet import without_collection

Fresh = Literal["", "all", "stale"]
"""Which stored runs to recompute."""

Elsewhere = Callable[[Sequence[PendingRun], Runner, Observer], None]
"""Computes runs into the runner's store by processes that are not this command's."""


def sweep(
    rows: Sequence[GridRow],
    store: Store,
    console: Console,
    draw: Callable[[list[Cells]], RenderableType],
    *,
    pools: Pools | None = None,
    fresh: Fresh = "",
    at_once: int | None = 1,
    most: int | None = 1,
    devices: Devices = ONE,
    allow_overlap: bool = False,
    loggers: tuple[str, ...] = (),
    accept: Callable[[PendingRun, Exception], bool] = lambda run, error: False,
    elsewhere: Elsewhere | None = None,
) -> tuple[list[Cells], list[str]]:
    """Compute the runs of a grid whose results are not stored yet.

    Runs go seed by seed over all rows, so that a table is filled with one seed before any row
    gets its second; concurrent runs start in that order too, the longest of a seed first. A task
    that the source lacks is left out. A run that another process is computing is left to it; its
    result is used, or it is computed here if that process gives it up. A run that fails is tried
    once more, in smaller micro-batches if memory ran out.

    Args:
        rows: the grid; rows that cannot run in this version stay empty.
        store: where results are and go.
        console: where progress is shown.
        draw: draws the table from the results so far.
        pools: where items come from; by default they are read again.
        fresh: which runs to recompute: ``"all"``, or ``"stale"`` for those computed by different
            code.
        at_once: how many runs to compute at once, each in its own process; with one, it is this
            process. ``None`` uses :func:`quanta_bench.runs.concurrency.runs_at_once`.
        most: how many runs to train together in common passes (:mod:`quanta_bench.runs.together`);
            ``None`` uses :func:`quanta_bench.runs.concurrency.runs_together`. More than one are
            computed in this process.
        devices: over what to spread each run; over several, runs are computed one after another.
        allow_overlap: score a task even if many of its items are in the training data.
        loggers: names of the loggers that trainings are followed in.
        accept: called with a run that failed and its error; if it returns true, the failure is an
            outcome like others, and there is no message about it.
        elsewhere: computes the runs in place of processes of this command, on a cluster.

    Returns:
        The rows with their results, and a message for each run that failed.

    Raises:
        UsageError: a row's settings are refused; before any data are read if its protocol is. Or
            too many test items are in the training data.
        SourceError: the source has none of the tasks, or lacks training data.
        StorageError: the store cannot be written.
        KeyboardInterrupt: the user interrupted. Finished runs are kept.
    """
    planned = [PlannedRow.of(row) for row in rows]
    console.print("Reading data and looking for finished runs.", style="dim")
    runner = runner_for(devices, store, Silent(), pools, loggers=loggers)
    if devices.count > 1:
        at_once = most = 1
    with WorkerPool() as pool:
        at_once, most = (1, 1) if elsewhere else together.settle(at_once, most)
        _start_early(pool, planned, store, fresh == "all", at_once)
        planned = without_absent(planned, runner.pools)
        with without_collection():
            cells, pending, estimator, failures = _find_finished(planned, runner, fresh)
        told = print_notices(store, console)
        if not pending:
            return cells, failures
        if not allow_overlap:
            for run in pending:
                check_overlap(runner, run.planned)
        store.check_writable()
        store.remove_litter()
        schedule = Schedule.of(pending, at_once)
        with Screen(console, [run.work for run in pending], lambda: draw(cells)) as screen:
            board = _Board(screen, estimator, accept, runner, failures)
            if elsewhere is not None:
                elsewhere(pending, runner, board)
            elif schedule.jobs == 1:
                pool.close()
                compute_all(pending, runner, board, most)
            else:
                console.print(str(schedule), style="dim", highlight=False)
                _compute_in_pool(pending, schedule, pool, runner, board)
        # Of what was found damaged meanwhile, such as the checkpoint of a stopped training.
        print_notices(store, console, told)
    return cells, board.failures


def check_overlap(runner: Runner, planned: PlannedRun) -> None:
    """Refuse a run too many of whose test items are in its training data.

    Raises:
        UsageError: they are.
    """
    if planned.method.trains:
        runner.overlaps.check(planned.training, planned.evaluation)


def print_notices(store: Store, console: Console, told: int = 0) -> int:
    """Print the store's notices after the first `told`; returns how many there are."""
    for notice in store.notices[told:]:
        console.print(Text(notice))
    return len(store.notices)


def _start_early(
    pool: WorkerPool, rows: Sequence[PlannedRow], store: Store, fresh: bool, at_once: int | None
) -> None:
    """Start workers early, since their imports take seconds, if no run is finished yet.

    None are started if some runs are finished, because then all may be; nor with a GPU, because
    workers are assigned to GPUs later.
    """
    distinct = {
        run.key: PendingRun("", seed, run) for planned in rows for seed, run in planned.runs
    }
    if not distinct or (not fresh and store.runs()):
        return
    schedule = Schedule.of(list(distinct.values()), at_once)
    if schedule.jobs > 1 and not schedule.resources.gpus:
        store.check_writable()
        pool.start(schedule.jobs, schedule.threads)


def _find_finished(
    rows: Sequence[PlannedRow], runner: Runner, fresh: Fresh
) -> tuple[list[Cells], list[PendingRun], DurationEstimator, list[str]]:
    """The finished runs in their cells, the others in the order of computation, and failures.

    The failures are messages about runs stored by a later version of the suite, which are skipped.
    """
    cells = []
    pending: dict[str, PendingRun] = {}
    estimator = DurationEstimator()
    finished = []
    failures = []
    for planned in rows:
        row = Cells(planned.row, {})
        cells.append(row)
        for seed, run in planned.runs:
            name = planned.name(seed, run)
            try:
                result = None if fresh == "all" else runner.find(run)
            except NewerSchemaError as error:
                failures.append(f"{name}: {error}")
                row.failed.append(failures[-1])
                continue
            again = fresh == "all" or (fresh == "stale" and runner.is_stale(run, result))
            if result is not None and not again:
                row.add(seed, result)
                finished.append((run, result))
            else:
                first = PendingRun(name, seed, run, fresh=again)
                pending.setdefault(run.key, first).cells.append((row, seed))
    for waiting in pending.values():
        waiting.work = work(waiting.planned, runner.pools)
    for run, result in finished if pending else ():
        estimator.observe(run.label, work(run, runner.pools), result)
    return cells, sorted(pending.values(), key=lambda run: run.seed), estimator, failures


class _Board:
    """Reports runs to the user and collects failures."""

    def __init__(
        self,
        screen: Screen,
        estimator: DurationEstimator,
        accept: Callable[[PendingRun, Exception], bool],
        runner: Runner,
        failures: Sequence[str] = (),
    ) -> None:
        self.screen = screen
        self.estimator = estimator
        self.accept = accept
        self.runner = runner
        self.failures = list(failures)
        self._waits: set[str] = set()

    def start(self, run: PendingRun) -> RunLine:
        return self.screen.begin(run.name, run.work)

    def finish(self, run: PendingRun, line: RunLine, result: Result) -> None:
        run.finish(result)
        self.estimator.observe(run.planned.label, run.work, result)
        line.finish()

    def wait(self, runs: Sequence[PendingRun]) -> bool:
        """Say once of each set of runs that other processes compute them, and wait for them."""
        names = {run.name for run in runs}
        if not names <= self._waits:
            self.screen.tell(f"Waiting for other processes: {', '.join(sorted(names))}.")
        self._waits = names
        return True

    def fail(self, run: PendingRun, line: RunLine, error: Exception) -> bool:
        """Record that an attempt failed; raise if the others would fail too.

        Returns:
            Whether to try once more.
        """
        if isinstance(error, UsageError):
            raise UsageError(f"{run.name}: {error}") from error
        if isinstance(error, StorageError):
            raise error
        if not isinstance(error, (BenchError, RuntimeError, MemoryError)):
            error.add_note(f"in the run {run.name}")
            raise error
        if isinstance(error, RunKilledError):
            # Any other error was noted where it was raised.
            self.runner.identify(run.planned)
            self.runner.note(run.planned, error)
        run.errors.append(error)
        if len(run.errors) == 1 and is_worth_retrying(error):
            line.retry(f"{AGAIN}: {error}")
            return True
        # The other rows are still worth computing.
        if not self.accept(run, error):
            self.failures.append(f"{run.name}: {error}")
            run.fail(error)
        line.fail()
        return False


def _compute_in_pool(
    runs: Sequence[PendingRun],
    schedule: Schedule,
    pool: WorkerPool,
    runner: Runner,
    board: _Board,
) -> None:
    """Compute several runs at once, in worker processes."""
    device = "cuda" if schedule.resources.gpus else "cpu"
    dtype = dtype_name(fast_dtype(device))
    store = runner.store
    root = store.root.absolute()
    settings = WorkerSettings(
        root, schedule.jobs, schedule.threads, ((device, dtype),), tuple(runner.loggers)
    )
    claims = Claims(
        schedule.batches,
        lambda number: runner.is_free(runs[number].planned),
        lambda batch: rank([runs[number] for number in batch], board.estimator),
    )
    halved: set[int] = set()
    events = pool.compute(
        [run.planned.job for run in runs],
        claims,
        settings,
        gpus=schedule.resources.gpus,
        fresh={number for number, run in enumerate(runs) if run.fresh},
        halved=halved,
        show=board.screen.tell,
    )
    lines: dict[int, RunLine] = {}
    for event in events:
        if isinstance(event, PoolWaits):
            board.wait([runs[number] for number in claims.put_off])
            continue
        run = runs[event.run]
        match event:
            case RunStarted(number):
                lines[number] = board.start(run)
            case RunProgressed(number, TrainingStep(done, total)):
                lines[number].training(done, total)
            case RunProgressed(number, ScoringStarted(total)):
                lines[number].scoring(total)
            case RunProgressed(number, ItemsScored(count)):
                lines[number].scored(count)
            case RunPostponed(number):
                lines.pop(number).postpone()
            case RunFailed(number, error):
                if board.fail(run, lines.pop(number), error):
                    claims.put_back([number])
                    halved |= {number} if run.halvings else set()
            case RunFinished(number, _):
                # By this command's names: another may have stored it under its own.
                result = runner.find(run.planned)
                if result is None:
                    raise BenchError(f"The result of {run.name} is not where it was stored.")
                board.finish(run, lines.pop(number), result)
