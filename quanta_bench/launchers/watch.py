"""The command's side of a launch: see to workers, and read what they leave in the store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from quanta_bench.launchers.ledger import History
from quanta_bench.launchers.order import Order
from quanta_bench.runs.claims import POLL_EACH, POLL_SECONDS, Observer
from quanta_bench.runs.progress import RunLine
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.schedule import PendingRun


class Workers(Protocol):
    """The workers of a launch, on some cluster."""

    def supply(self, free: Sequence[int], left: int, progress: int) -> None:
        """See to it that somebody computes what is left.

        Args:
            free: numbers of the order's batches that nobody computes.
            left: how many batches are unfinished.
            progress: grows whenever a run begins or ends.

        Raises:
            BenchError: there are no workers to be had.
        """

    def stop(self) -> None:
        """End all workers; what they have finished is kept."""


def wanted(free: int, left: int, live: int, most: int) -> int:
    """How many further workers there should be, where each computes any run.

    A worker that finds all runs taken leaves, so that fewer than there are runs may be left at the
    end; as long as nobody is lost, each unfinished run then has its worker.

    Args:
        free: batches that nobody computes.
        left: batches that are unfinished.
        live: workers that run or will.
        most: the most workers at once.
    """
    return max(0, min(free, min(most, left) - live))


class Watch:
    """Waits for the runs of an order and reports them.

    Args:
        order: the order.
        runs: its runs, as the command knows them.
        runner: finds results.
        observer: is told what becomes of runs.
    """

    def __init__(
        self, order: Order, runs: Sequence[PendingRun], runner: Runner, observer: Observer
    ) -> None:
        self._order = order
        self._runs = runs
        self._runner = runner
        self._observer = observer
        self._left = dict.fromkeys(range(len(runs)))
        self._lines: dict[int, RunLine] = {}
        self._told: dict[int, History] = {}

    def wait(self, workers: Workers) -> None:
        """Wait until each run has a result or is given up.

        Raises:
            BenchError: no other run can succeed, or there are no workers.
        """
        while True:
            self._look()
            if not self._left:
                return
            batches = self._order.batches
            left = [n for n, batch in enumerate(batches) if not self._left.keys().isdisjoint(batch)]
            held = set(self._runner.store.leases.names())
            free = [number for number in left if self._is_free(batches[number][0], held)]
            workers.supply(free, len(left), self._progress)
            time.sleep(max(POLL_SECONDS, POLL_EACH * (len(left) - len(free))))

    @property
    def _progress(self) -> int:
        ended = len(self._runs) - len(self._left)
        return ended + sum(len(history.entries) for history in self._told.values())

    def _is_free(self, run: int, held: set[str]) -> bool:
        planned = self._runs[run].planned
        return self._runner.identify(planned).training not in held or self._runner.is_free(planned)

    def _look(self) -> None:
        """Report what happened since the last look."""
        begun = self._order.ledger.runs()
        stored = self._runner.store.listed()
        for number in list(self._left):
            name = self._order.runs[number].run
            if name in begun:
                self._follow(number, self._order.ledger.history(name))
            if number in self._left and name in stored:
                self._find(number)
        stopped = self._order.stopped
        if stopped is not None and self._left:
            raise stopped

    def _find(self, number: int) -> None:
        run = self._runs[number]
        result = self._runner.find(run.planned)
        if result is not None:
            self._observer.finish(run, self._line(number), result)
            self._end(number)

    def _follow(self, number: int, history: History) -> None:
        """Report the beginnings and failures of a run."""
        told = self._told.get(number, History())
        self._told[number] = history
        if len(history.attempts) > len(told.attempts):
            if history.lost > told.lost:
                self._lost(number, history.attempts[-2].host)
            self._line(number)
        for error in history.failures[len(told.failures) :]:
            self._fail(number, error)
        final = history.final
        while final is not None and number in self._left:
            self._fail(number, final)

    def _fail(self, number: int, error: Exception) -> None:
        """Report a failed attempt; the last one ends the run."""
        if number not in self._left:
            return
        line = self._line(number)
        if self._observer.fail(self._runs[number], line, error):
            del self._lines[number]
        else:
            self._end(number)

    def _lost(self, number: int, host: str) -> None:
        line = self._lines.pop(number, None)
        if line is not None:
            line.retry(f"its worker on {host} was lost; another one computes it")

    def _line(self, number: int) -> RunLine:
        if number not in self._lines:
            self._lines[number] = self._observer.start(self._runs[number])
        return self._lines[number]

    def _end(self, number: int) -> None:
        self._lines.pop(number, None)
        del self._left[number]
