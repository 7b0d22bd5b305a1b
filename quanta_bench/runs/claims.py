"""The claim loop: which run to compute next while other processes compute the same sweep.

Every process goes through the same runs. It claims a run by the lease of its training; one that
another process holds is put off and comes back when that lease has ended: finished, so that its
result is read, or given up, so that it is computed here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from quanta_bench.errors import (
    BenchError,
    DivergedError,
    OutOfMemoryError,
    RunInProgressError,
    RunKilledError,
    StorageError,
    UsageError,
)
from quanta_bench.results.records import Result
from quanta_bench.runs import together
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.runs.progress import RunLine
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.schedule import PendingRun

POLL_SECONDS = 1.0
"""Least interval between looks at the leases of others."""

POLL_EACH = 0.1
"""Seconds by which each run that is put off lengthens it: many processes look into one folder."""

AGAIN = "failed; tried once more"
"""What is said of a run that failed for the first time."""

Batch = list[int]
"""Indices of runs that share a training; computed in order, by one process."""


class Claims:
    """Batches of runs that are left to this process, the next one to be tried first.

    Args:
        batches: in the order of computation.
        is_free: whether nobody computes the training of a run, by index.
        rank: sort key of batches, evaluated whenever one is asked for; the lowest comes first. By
            default they come in the order given.
    """

    def __init__(
        self,
        batches: Sequence[Sequence[int]],
        is_free: Callable[[int], bool] = lambda run: True,
        rank: Callable[[Sequence[int]], Any] | None = None,
    ) -> None:
        self._ready: deque[Batch] = deque(list(batch) for batch in batches)
        self._put_off: list[Batch] = []
        self._looked = monotonic()
        self._is_free = is_free
        self._rank = rank

    def __len__(self) -> int:
        return len(self._ready) + len(self._put_off)

    @property
    def put_off(self) -> list[int]:
        """The runs that were taken when they were tried."""
        return [run for batch in self._put_off for run in batch]

    @property
    def poll_seconds(self) -> float:
        """How long to wait before the next look, if `next` gave nothing."""
        return max(POLL_SECONDS, POLL_EACH * len(self._put_off))

    def next(self) -> Batch | None:
        """The batch to try next; ``None`` if none is left, or other processes hold all of them.

        Looks at the leases of others no more often than every `poll_seconds`.
        """
        if not self._ready and monotonic() - self._looked >= self.poll_seconds:
            self._looked = monotonic()
            free = [batch for batch in self._put_off if self._is_free(batch[0])]
            self._ready += free
            self._put_off = [batch for batch in self._put_off if batch not in free]
        if not self._ready:
            return None
        if self._rank is None:
            return self._ready.popleft()
        batch = min(self._ready, key=self._rank)
        self._ready.remove(batch)
        return batch

    def put_back(self, batch: Batch) -> None:
        """Return what is left of a batch, to be tried first among equals."""
        if batch:
            self._ready.appendleft(batch)

    def postpone(self, batch: Batch) -> None:
        """Return a batch whose training another process computes."""
        self._put_off.append(batch)
        self._looked = monotonic()


class Observer(Protocol):
    """Is told what becomes of runs."""

    def start(self, run: PendingRun) -> RunLine:
        """A run is tried; what it returns receives its progress."""

    def finish(self, run: PendingRun, line: RunLine, result: Result) -> None:
        """A run has a result, of this process or another."""

    def fail(self, run: PendingRun, line: RunLine, error: Exception) -> bool:
        """An attempt failed; returns whether to try once more."""

    def wait(self, runs: Sequence[PendingRun]) -> bool:
        """Other processes compute all runs that are left; returns whether to wait for them."""


def is_worth_retrying(error: Exception) -> bool:
    """Whether a failed run may do better at once; divergence and refused settings come again."""
    lasting = (UsageError, StorageError, DivergedError)
    return isinstance(error, BenchError) and not isinstance(error, lasting)


def compute_all(
    runs: Sequence[PendingRun],
    runner: Runner,
    observer: Observer,
    most: int = 1,
    skip: Callable[[PendingRun], bool] = lambda run: False,
) -> None:
    """Compute runs in this process, one after another, together with others on the same store.

    Returns when each run has a result or has failed, in whatever process; or when the observer does
    not want to wait for those that others compute.

    Args:
        runs: the runs.
        runner: computes them.
        observer: is told.
        most: how many are trained together in common passes.
        skip: whether to leave a run out, asked when its turn comes.
    """

    def is_free(number: int) -> bool:
        return runner.is_free(runs[number].planned)

    groups = {group[0]: group for group in together.groups([run.planned for run in runs], most)}
    lines: dict[int, RunLine] = {}
    errors: dict[int, BenchError] = {}
    held: dict[int, str] = {}
    claims = Claims([[number] for number in range(len(runs))], is_free)
    while claims:
        batch = claims.next()
        if batch is None:
            if not observer.wait([runs[number] for number in claims.put_off]):
                return
            time.sleep(claims.poll_seconds)
            continue
        (number,) = batch
        if skip(runs[number]):
            continue
        if number in held and _is_renewed(runner, runs[number].planned, held.pop(number)):
            runs[number].fresh = False
        group = groups.pop(number, [])
        if len(group) > 1:
            lines |= {member: observer.start(runs[member]) for member in group}
            errors |= together.train(
                runner,
                {member: (runs[member].planned, lines[member]) for member in group},
                fresh={member for member in group if runs[member].fresh},
            )
        run = runs[number]
        line = lines.pop(number, None) or observer.start(run)
        runner.reporter = line
        try:
            if number in errors:
                raise errors.pop(number)
            result = runner.compute(run.planned, fresh=run.fresh, halvings=run.halvings)
        except RunInProgressError:
            if run.fresh:
                held[number] = _before(runner, run.planned)
            line.postpone()
            claims.postpone(batch)
        except Exception as error:
            if observer.fail(run, line, error):
                claims.put_back(batch)
        else:
            observer.finish(run, line, result)


def _before(runner: Runner, planned: PlannedRun) -> str:
    """The checksum of the training of a run that another process holds, to be computed again.

    The stored result will not do any more, whoever replaces it.
    """
    result = runner.find(planned)
    if result is not None:
        runner.outdated[result.run] = result.checksum
    return _checksum(runner, planned)


def _is_renewed(runner: Runner, planned: PlannedRun, before: str) -> bool:
    """Whether the other process has trained it again, so that this one need not."""
    return _checksum(runner, planned) not in ("", before)


def _checksum(runner: Runner, planned: PlannedRun) -> str:
    record = runner.stored_training(planned, runner.identify(planned))
    return "" if record is None else record.checksum


def compute_or_wait(
    planned: PlannedRun, runner: Runner, tell: Callable[[str], None], *, fresh: bool = False
) -> Result:
    """The result of a single run, computed here or by the process that holds it; tried twice.

    Args:
        planned: the run.
        runner: computes it.
        tell: called with a sentence if another process holds it.
        fresh: compute it even if it is stored; what another process has just computed will do.

    Raises:
        BenchError: see :meth:`Runner.compute`.
    """
    failed = False
    halvings = 0
    while True:
        try:
            return runner.compute(planned, fresh=fresh, halvings=halvings)
        except RunInProgressError as taken:
            tell(f"{taken} Waiting for it.")
            before = _before(runner, planned) if fresh else ""
            while not runner.is_free(planned):
                time.sleep(POLL_SECONDS)
            fresh = fresh and not _is_renewed(runner, planned, before)
        except BenchError as error:
            if isinstance(error, RunKilledError):
                # Any other error was noted where it was raised.
                runner.note(planned, error)
            if failed or not is_worth_retrying(error):
                raise
            failed = True
            halvings = int(isinstance(error, OutOfMemoryError))
            tell(f"{AGAIN}: {error}")
