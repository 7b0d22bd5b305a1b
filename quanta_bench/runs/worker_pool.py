"""A pool of worker processes that compute runs concurrently.

Each worker is started once and computes one run after another. If a worker dies, only its current
run fails; the others continue. Leaving the context ends all workers: none outlives the command.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import IO, Any

from quanta_bench.errors import BenchError, RunInProgressError, RunKilledError
from quanta_bench.runs.claims import Batch, Claims
from quanta_bench.runs.concurrency import visible_gpu
from quanta_bench.runs.worker import Progress, WorkerSettings, compute_run, import_libraries
from quanta_bench.spec import Job
from quanta_bench.utils.processes import (
    ChildDiedError,
    ChildProcess,
    Message,
    Raised,
    Returned,
    close_all,
    printed_lines,
)


@dataclass(frozen=True)
class RunStarted:
    """A worker starts a run.

    Attributes:
        run: index of the run.
    """

    run: int


@dataclass(frozen=True)
class RunProgressed:
    """A run made progress."""

    run: int
    progress: Progress


@dataclass(frozen=True)
class RunFinished:
    """A run is stored under a name."""

    run: int
    name: str


@dataclass(frozen=True)
class RunFailed:
    """A run ended with an exception."""

    run: int
    error: Exception


@dataclass(frozen=True)
class RunPostponed:
    """Another process is computing the run; it comes back when that one has ended."""

    run: int


@dataclass(frozen=True)
class PoolWaits:
    """Other processes compute all runs that are left."""


Event = RunStarted | RunProgressed | RunFinished | RunFailed | RunPostponed | PoolWaits


@dataclass
class _Worker:
    process: ChildProcess
    log: IO[bytes]
    number: int
    ready: bool = False
    busy: bool = False
    batch: Batch = field(default_factory=list)

    @classmethod
    def start(cls, number: int, threads: int, gpus: int) -> _Worker:
        """Start a process and let it import the libraries."""
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        gpu = visible_gpu(number, gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker is stopped
        worker = cls(ChildProcess(log=log, environment=environment), log, number)
        worker.process.call(import_libraries)
        return worker

    def printed(self) -> list[str]:
        """The lines that libraries printed."""
        return printed_lines(self.log)


class WorkerPool:
    """Workers, which may be started before their runs are known."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._workers: dict[Any, _Worker] = {}
        self._started = 0
        self._shown: set[str] = set()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, count: int, threads: int, gpus: int = 0) -> None:
        """Start workers; `compute` starts any that are missing.

        Args:
            count: how many.
            threads: processor threads that each is expected to have; `WorkerSettings` decides.
            gpus: how many GPUs there are, to give workers one each in turn.
        """
        for _ in range(count):
            self._idle.append(_Worker.start(self._started, threads, gpus))
            self._started += 1

    def close(self) -> None:
        """End all workers."""
        self._stop([*self._idle, *self._workers.values()])
        self._idle.clear()

    def compute(
        self,
        jobs: Sequence[Job],
        claims: Claims,
        settings: WorkerSettings,
        *,
        gpus: int = 0,
        fresh: Collection[int] = (),
        halved: Collection[int] = (),
        show: Callable[[str], None],
    ) -> Iterator[Event]:
        """Compute runs and yield events as they happen.

        Args:
            jobs: the runs.
            claims: which of them to try, in which order; a batch is computed by one worker.
            settings: settings of all runs; ``settings.jobs`` workers compute them.
            gpus: number of GPUs.
            fresh: indices of the stored runs to recompute.
            halved: indices of the runs to compute in micro-batches of half the size.
            show: called once with each line that libraries print in a worker.

        Raises:
            BenchError: a worker could not be started.
        """
        size = min(settings.jobs, len(claims))
        self.start(size - len(self._idle), settings.threads, gpus)
        self._stop(self._idle[size:])
        self._workers = {worker.process.connection: worker for worker in self._idle[:size]}
        self._idle.clear()
        while True:
            free = [worker for worker in self._workers.values() if worker.ready and not worker.busy]
            for worker in free:
                batch = worker.batch or claims.next()
                if batch:
                    worker.batch, worker.busy = batch, True
                    yield RunStarted(batch[0])
                    worker.process.call(
                        compute_run,
                        settings,
                        jobs[batch[0]],
                        batch[0] in fresh,
                        int(batch[0] in halved),
                        tells=True,
                    )
                elif not claims:
                    self._stop([worker])
            if not self._workers:
                return
            if not any(worker.busy or not worker.ready for worker in self._workers.values()):
                yield PoolWaits()
            for connection in wait(list(self._workers), claims.poll_seconds if claims else None):
                yield from self._answer(self._workers[connection], claims, settings, gpus, show)

    def _answer(
        self,
        worker: _Worker,
        claims: Claims,
        settings: WorkerSettings,
        gpus: int,
        show: Callable[[str], None],
    ) -> Iterator[Event]:
        """Receive a worker's next reply and yield what it means."""
        try:
            reply = worker.process.receive()
        except ChildDiedError as error:
            yield self._handle_death(worker, error, claims)
            # If memory ran out, one worker fewer may fit.
            if claims and not (error.killed and self._workers):
                # In its place, so on its GPU.
                replacement = _Worker.start(worker.number, settings.threads, gpus)
                self._workers[replacement.process.connection] = replacement
            return
        if isinstance(reply, Message):
            yield RunProgressed(worker.batch[0], reply.content)
            return
        if worker.ready:
            yield _end(worker, reply, claims)
        elif isinstance(reply, Raised):
            raise BenchError(
                f"A process to compute runs in could not start: {reply.error}"
            ) from reply.error
        worker.ready, worker.busy = True, False
        self._show(worker, show)

    def _handle_death(self, worker: _Worker, error: ChildDiedError, claims: Claims) -> RunFailed:
        """Handle a dead worker: its run has failed, the rest of its batch is put back."""
        last = "".join(worker.printed()[-1:])
        reason = f"{error}: {last}" if last else f"{error}."
        self._stop([worker])
        if not worker.ready:
            raise BenchError(f"A process to compute runs in could not start; it {reason}")
        if error.killed:
            reason = f"{error}; the same command with --jobs 1 needs the least memory."
        run, *rest = worker.batch
        claims.put_back(rest)
        return RunFailed(run, RunKilledError(f"The process that computed it {reason}"))

    def _show(self, worker: _Worker, show: Callable[[str], None]) -> None:
        for line in worker.printed():
            if line not in self._shown:
                self._shown.add(line)
                show(line)

    def _stop(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            self._workers.pop(worker.process.connection, None)
        try:
            close_all([worker.process for worker in workers])
        finally:
            for worker in workers:
                worker.log.close()


def _end(worker: _Worker, reply: Returned | Raised, claims: Claims) -> Event:
    """Remove a worker's current run from its batch and return the event that ends it."""
    run, *worker.batch = worker.batch
    if isinstance(reply, Returned):
        return RunFinished(run, reply.value)
    if isinstance(reply.error, RunInProgressError):
        # The rest of the batch evaluates the same training.
        claims.postpone([run, *worker.batch])
        worker.batch = []
        return RunPostponed(run)
    return RunFailed(run, reply.error)
