"""Worker processes that compute runs side by side, as the command sees them.

Each is started once and computes one run after another. A worker that dies costs the run that it
was computing; the others go on. Leaving the block ends them all: none outlives the command.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import IO, Any

from quanta_bench.errors import BenchError, RunInProgressError
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
)


@dataclass(frozen=True)
class RunStarted:
    """A worker begins with a run.

    Attributes:
        run: the run's number, as it was given.
        waits: whether it waits first until another process has finished with the run.
    """

    run: int
    waits: bool = False


@dataclass(frozen=True)
class RunProgressed:
    """A run goes on."""

    run: int
    progress: Progress


@dataclass(frozen=True)
class RunFinished:
    """A run is stored under a name."""

    run: int
    name: str


@dataclass(frozen=True)
class RunFailed:
    """A run ended by an exception."""

    run: int
    error: Exception


@dataclass(frozen=True)
class RunPostponed:
    """Another process is computing the run; it will be started again when all others are done."""

    run: int


Event = RunStarted | RunProgressed | RunFinished | RunFailed | RunPostponed


@dataclass
class _Batch:
    """Numbers of runs that one worker computes in order."""

    runs: list[int]
    waits: bool = False


@dataclass
class _Worker:
    process: ChildProcess
    log: IO[bytes]
    ready: bool = False
    batch: _Batch = field(default_factory=lambda: _Batch([]))

    @classmethod
    def start(cls, number: int, threads: int, gpus: int) -> _Worker:
        """Start a process, which imports what it needs."""
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        gpu = visible_gpu(number, gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker is stopped
        worker = cls(ChildProcess(log=log, environment=environment), log)
        worker.process.call(import_libraries)
        return worker

    def printed(self) -> list[str]:
        """The lines that libraries printed."""
        # By position, for the worker writes through the same open file.
        size = os.fstat(self.log.fileno()).st_size
        text = os.pread(self.log.fileno(), size, 0).decode(errors="replace")
        return [line.rstrip() for line in text.splitlines() if line.strip()]


class WorkerPool:
    """Workers, which may be started before it is known what they will compute."""

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
        """Start workers; `compute` starts those that it lacks.

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
        batches: Sequence[Sequence[int]],
        settings: WorkerSettings,
        *,
        gpus: int = 0,
        rank: Callable[[Sequence[int]], Any] = lambda batch: 0,
        fresh: Collection[int] = (),
        show: Callable[[str], None],
    ) -> Iterator[Event]:
        """Compute runs and report what happens, as it happens.

        Runs that another process is computing are postponed; when no other is left, workers wait
        for them.

        Args:
            jobs: the runs.
            batches: numbers of runs; those of a batch go to one worker, in order.
            settings: what holds for all of them; ``settings.jobs`` workers compute them.
            gpus: how many GPUs there are.
            rank: asked of the waiting batches whenever one is to start: the one of least rank
                starts, of several the first.
            fresh: numbers of the runs to compute again though they are stored.
            show: called with what libraries print in a worker, each line once.

        Raises:
            BenchError: a worker could not be started.
        """
        waiting = [_Batch(list(batch)) for batch in batches]
        size = min(settings.jobs, len(waiting))
        self.start(size - len(self._idle), settings.threads, gpus)
        self._stop(self._idle[size:])
        self._workers = {worker.process.connection: worker for worker in self._idle[:size]}
        self._idle.clear()
        while self._workers:
            for connection in wait(list(self._workers)):
                worker = self._workers[connection]
                try:
                    reply = worker.process.receive()
                except ChildDiedError as error:
                    yield self._bury(worker, error, waiting)
                    # Where memory ran out, one fewer may fit.
                    if waiting and not (error.killed and self._workers):
                        self.start(1, settings.threads, gpus)
                        replacement = self._idle.pop()
                        self._workers[replacement.process.connection] = replacement
                    continue
                if isinstance(reply, Message):
                    yield RunProgressed(worker.batch.runs[0], reply.content)
                    continue
                if worker.ready:
                    yield _end(worker, reply, waiting)
                elif isinstance(reply, Raised):
                    raise BenchError(
                        f"A process to compute runs in could not start: {reply.error}"
                    ) from reply.error
                worker.ready = True
                self._show(worker, show)
                if not worker.batch.runs and waiting:
                    worker.batch = min(waiting, key=lambda batch: (batch.waits, rank(batch.runs)))
                    waiting.remove(worker.batch)
                if worker.batch.runs:
                    run, waits = worker.batch.runs[0], worker.batch.waits
                    yield RunStarted(run, waits)
                    worker.process.call(
                        compute_run, settings, jobs[run], run in fresh, waits, tells=True
                    )
                else:
                    self._stop([worker])

    def _bury(self, worker: _Worker, error: ChildDiedError, waiting: list[_Batch]) -> RunFailed:
        """A worker died: its run has failed, and the rest of its batch is left to others."""
        last = "".join(worker.printed()[-1:])
        reason = f"{error}: {last}" if last else f"{error}."
        self._stop([worker])
        if not worker.ready:
            raise BenchError(f"A process to compute runs in could not start; it {reason}")
        if error.killed:
            reason = f"{error}; the same command with --jobs 1 needs the least memory."
        run, *rest = worker.batch.runs
        if rest:
            waiting.insert(0, _Batch(rest, worker.batch.waits))
        return RunFailed(run, BenchError(f"The process that computed it {reason}"))

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


def _end(worker: _Worker, reply: Returned | Raised, waiting: list[_Batch]) -> Event:
    """The event that ends a worker's present run, which leaves its batch."""
    run = worker.batch.runs.pop(0)
    if isinstance(reply, Returned):
        return RunFinished(run, reply.value)
    if isinstance(reply.error, RunInProgressError) and not worker.batch.waits:
        # The others of its batch score the same training.
        waiting.append(_Batch([run, *worker.batch.runs], waits=True))
        worker.batch = _Batch([])
        return RunPostponed(run)
    return RunFailed(run, reply.error)
