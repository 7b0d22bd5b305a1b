"""Compute runs on a cluster: write the order, start workers, wait for the results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from quanta_bench.errors import BenchError
from quanta_bench.launchers.order import Order, remove_finished
from quanta_bench.launchers.watch import Watch, Workers
from quanta_bench.models.precision import automatic
from quanta_bench.runs.claims import Observer
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.schedule import PendingRun

FRUITLESS = 3
"""Starts of workers in a row after which none began or ended a run: then something is wrong."""


class Launcher(Protocol):
    """A kind of cluster, with what the user wants of it."""

    def connect(self) -> None:
        """Find the cluster.

        Raises:
            BenchError: it cannot be reached, or the package for it is missing.
        """

    @property
    def dtype(self) -> str | None:
        """What ``precision="auto"`` stands for on its workers; ``None``: what it does here."""

    @property
    def threads(self) -> int:
        """CPU threads of a worker."""

    def launch(self, order: Order, runs: Sequence[PendingRun]) -> Workers:
        """Prepare to compute an order; workers come with the first :meth:`Workers.supply`."""

    def close(self) -> None:
        """Let go of the cluster."""


class Detached(Exception):  # noqa: N818 - nothing went wrong
    """The workers are submitted, and the command does not wait for them."""


class Launch:
    """Computes runs by a launcher's workers: a :data:`quanta_bench.runs.sweep.Elsewhere`.

    Args:
        launcher: starts the workers.
        wait: whether to wait for the results.
    """

    def __init__(self, launcher: Launcher, *, wait: bool = True) -> None:
        self._launcher = launcher
        self._wait = wait

    def __call__(self, runs: Sequence[PendingRun], runner: Runner, observer: Observer) -> None:
        """Compute runs.

        Raises:
            BenchError: no other run can succeed, or there are no workers.
            Detached: it does not wait.
        """
        remove_finished(runner.store.root)
        order = Order.make(runs, runner, dtype=automatic(), threads=self._launcher.threads)
        workers = self._launcher.launch(order, runs)
        if not self._wait:
            batches = range(len(order.batches))
            workers.supply(batches, len(batches), 0)
            raise Detached(
                f"{len(runs)} runs are left to them. The same command with --stored shows what is "
                "finished; without --no-wait it computes what they left, and ends with the table."
            )
        try:
            Watch(order, runs, runner, observer).wait(workers)
        finally:
            workers.stop()
        if all(order.ledger.history(run.run).final is None for run in order.runs):
            order.remove()


class Patience:
    """Ends a launch whose workers are started again and again, and compute nothing."""

    def __init__(self) -> None:
        self._progress = -1
        self._starts = 0
        self.problem = ""

    def started(self, progress: int) -> None:
        """Workers are started.

        Args:
            progress: see :meth:`Workers.supply`.

        Raises:
            BenchError: for the fourth time in a row without progress.
        """
        if progress > self._progress:
            self._progress, self._starts = progress, 0
        self._starts += 1
        if self._starts > FRUITLESS:
            fruitless = f"Workers were started {FRUITLESS} times and computed nothing."
            raise BenchError(f"{fruitless} {self.problem}".strip())


def settle_precision(launcher: Launcher) -> None:
    """Let ``precision="auto"`` stand here for what it does on a launcher's workers.

    It enters the names of runs, by which the command finds what workers store.
    """
    import torch

    from quanta_bench.models import precision
    from quanta_bench.utils.device import this_device

    if launcher.dtype is not None:
        precision.settle(this_device().type, getattr(torch, launcher.dtype))


def last_line(text: str) -> str:
    """The last line of a text with anything in it; empty without one."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
