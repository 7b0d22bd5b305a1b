"""A worker: a process on any machine that claims runs of an order and computes them."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from time import monotonic

from rich.console import Console

from quanta_bench.errors import StorageError, UsageError
from quanta_bench.launchers.ledger import History
from quanta_bench.launchers.order import Order
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.claims import AGAIN, POLL_SECONDS, compute_all
from quanta_bench.runs.progress import RunLine, Screen, Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.schedule import PendingRun

WIDE = 200
"""Columns of a worker's log."""


def work(folder: Path, worker: int = 0, workers: int = 1, batch: int | None = None) -> None:
    """Compute runs of an order until none is left that another process does not compute.

    Args:
        folder: the order's folder.
        worker: number of this worker. Each begins with batches of its own and then turns to those
            of the others, so that they seldom try the same one.
        workers: how many there are.
        batch: the only batch to compute; by default all.

    Raises:
        BenchError: the order cannot be read, or no run of it can succeed.
    """
    import torch

    from quanta_bench.models import precision
    from quanta_bench.utils.device import this_device
    from quanta_bench.utils.quiet import settle_libraries

    order = Order.read(folder)
    os.chdir(order.directory)
    settle_libraries()
    if order.threads:
        torch.set_num_threads(order.threads)
    precision.settle(this_device().type, getattr(torch, order.dtype))
    runner = Runner(
        Store(order.root),
        Silent(),
        jobs=order.jobs,
        loggers=order.loggers,
        outdated=order.outdated,
        attempt=order.ledger.attempt,
    )
    chosen = order.batches if batch is None else [order.batches[batch]]
    runs = [order.runs[n].pending() for batch in in_turn(chosen, worker, workers) for n in batch]
    screen = Screen(Console(width=WIDE), [run.work for run in runs])
    Claimant(order, runner, screen).compute(runs)


def in_turn(batches: Sequence[list[int]], worker: int, workers: int) -> list[list[int]]:
    """Batches in the order in which one of several workers tries them."""
    own = batches[worker % workers :: workers]
    others = [batch for n, batch in enumerate(batches) if n % workers != worker % workers]
    return [*own, *others]


class Claimant:
    """Claims runs for a worker: an :class:`quanta_bench.runs.claims.Observer`.

    Args:
        order: what is computed.
        runner: computes it.
        screen: where progress is shown.
    """

    def __init__(self, order: Order, runner: Runner, screen: Screen) -> None:
        self._order = order
        self._runner = runner
        self._screen = screen
        self._stored: Collection[str] = ()
        self._stopped = False
        self._listed = -POLL_SECONDS

    def compute(self, runs: Sequence[PendingRun]) -> None:
        """Compute what nobody else does.

        Raises:
            BenchError: no run can succeed.
        """
        try:
            compute_all(runs, self._runner, self, skip=self._skip)
        except (UsageError, StorageError) as error:
            self._order.stop(error)
            raise

    def start(self, run: PendingRun) -> RunLine:
        """What other workers tried counts: a run may need smaller micro-batches."""
        run.errors[:] = self._history(run).failures
        return self._screen.begin(run.name, run.work)

    def finish(self, run: PendingRun, line: RunLine, result: Result) -> None:
        """Nothing is left to do: the command reads the result."""
        line.finish()

    def fail(self, run: PendingRun, line: RunLine, error: Exception) -> bool:
        """Note that an attempt failed; returns whether to try once more.

        Raises:
            UsageError, StorageError: no other run can succeed.
        """
        if isinstance(error, UsageError):
            raise UsageError(f"{run.name}: {error}") from error
        if isinstance(error, StorageError):
            raise error
        self._order.ledger.fail(self._name(run), error)
        history = self._history(run)
        run.errors[:] = history.failures
        if history.final is None:
            line.retry(f"{AGAIN}: {error}")
            return True
        line.fail()
        self._screen.tell(f"{run.name}: {error}")
        return False

    def wait(self, runs: Sequence[PendingRun]) -> bool:
        """Wait only until the others have shown that they are alive: they finish their own runs.

        A machine that does nothing is better given back. Who computes a run looks after those of
        the others when it is done, and the command replaces workers that are lost.
        """
        leases = self._runner.store.leases
        trainings = {self._runner.identify(run.planned).training for run in runs}
        return not all(map(leases.is_alive, trainings))

    def _skip(self, run: PendingRun) -> bool:
        """Whether a run is finished or given up, whoever did so."""
        if monotonic() - self._listed >= POLL_SECONDS:
            self._stored = self._runner.store.listed() - self._runner.outdated.keys()
            self._stopped = self._order.stopped is not None
            self._listed = monotonic()
        if self._stopped or self._name(run) in self._stored:
            return True
        return self._history(run).final is not None

    def _history(self, run: PendingRun) -> History:
        return self._order.ledger.history(self._name(run))

    def _name(self, run: PendingRun) -> str:
        return self._runner.identify(run.planned).run
