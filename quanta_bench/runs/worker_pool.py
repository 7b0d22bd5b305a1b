"""Worker processes that compute runs side by side, seen from the command.

Each is started once and computes one run after another. One that dies costs the run that it was
at; the others go on. Leaving the block stops them all: none outlives the command.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from time import monotonic
from typing import IO, Any

from quanta_bench.errors import BenchError
from quanta_bench.runs.concurrency import visible_gpu
from quanta_bench.runs.worker import PROGRESS, Setting, order
from quanta_bench.spec import Job

COMMAND = (sys.executable, "-P", "-m", "quanta_bench.runs.worker")
"""Starts a worker; the number of its socket comes last."""

STOP_SECONDS = 10.0
"""What workers get to end in by themselves, their files in order, before they are killed."""


class WorkerError(Exception):
    """A fault of the suite in a worker, with where it happened as a note."""


@dataclass(frozen=True)
class Event:
    """Something that a worker says of a run.

    Attributes:
        run: the run's number, as it was given.
        kind: ``begun``, ``done`` (``words``: the run's name on disk), ``failed`` (``words``: the
            message), ``refused`` (the same; the user's words are off), or a call of a
            :class:`quanta_bench.runs.progress.Reporter` with its arguments.
        words: what belongs to it.
    """

    run: int
    kind: str
    words: tuple[Any, ...] = ()


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    link: Connection
    log: IO[bytes]
    number: int
    ready: bool = False
    batch: deque[int] = field(default_factory=deque)

    @classmethod
    def start(cls, number: int, threads: int, gpus: int) -> _Worker:
        """Start a process, which imports what it needs and waits for its `Setting`."""
        ours, theirs = Pipe()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            # What is importable here is importable there.
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        }
        gpu = visible_gpu(number, gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker is stopped
        with theirs:
            process = subprocess.Popen(
                [*COMMAND, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=[theirs.fileno()],
            )
        return cls(process, ours, log, number)

    def last_line(self) -> str:
        lines = self.log_text().strip().splitlines()
        return lines[-1].strip() if lines else ""

    def log_text(self) -> str:
        # By position, for the worker writes through the same open file.
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0).decode(errors="replace")


class Ahead:
    """Workers that start before it is known what they will compute: their imports take seconds.

    Leaving the block, or `close`, ends those that no `Crew` has taken.

    Args:
        size: how many.
        threads: processor threads that each is expected to have; a `Setting` has the last word.
    """

    def __init__(self, size: int, threads: int) -> None:
        self._workers = deque(_Worker.start(number, threads, 0) for number in range(size))

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self) -> _Worker | None:
        """One of them, or ``None`` when there are no more."""
        return self._workers.popleft() if self._workers else None

    def close(self) -> None:
        """End the others."""
        left = list(self._workers)
        self._workers.clear()
        _end(left)


class Crew:
    """So many workers.

    Args:
        size: how many.
        setting: what holds for all their runs.
        ahead: workers that have been started; more are started when these are taken.
        gpus: how many GPUs there are, to give workers one each in turn.
        tell: called with what libraries print in a worker, each line once.
    """

    def __init__(
        self,
        size: int,
        setting: Setting,
        *,
        ahead: Ahead | None = None,
        gpus: int = 0,
        tell: Callable[[str], None],
    ) -> None:
        self._size = size
        self._setting = setting
        self._ahead = ahead
        self._gpus = gpus
        self._tell = tell
        self._told: set[str] = set()
        self._workers: dict[Connection, _Worker] = {}
        self._started = 0

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop(list(self._workers.values()))

    def compute(
        self,
        jobs: Sequence[Job],
        batches: Sequence[Sequence[int]],
        *,
        rank: Callable[[Sequence[int]], Any] = lambda batch: 0,
        fresh: Collection[int] = (),
    ) -> Iterator[Event]:
        """Compute runs and say what happens, as it happens.

        Args:
            jobs: the runs.
            batches: numbers of runs; those of a batch go to one worker, in order.
            rank: asked of the waiting batches whenever one is to start: the one of least rank
                starts, of several the first.
            fresh: numbers of the runs to compute again though they are on disk.

        Raises:
            BenchError: a worker could not be started.
            WorkerError: one had a fault.
        """
        waiting = deque(deque(batch) for batch in batches)
        for _ in range(min(self._size, len(waiting))):
            self._start()
        if self._ahead is not None:
            self._ahead.close()
        while self._workers:
            for link in wait(list(self._workers)):
                assert isinstance(link, Connection)
                worker = self._workers[link]
                try:
                    kind, *words = json.loads(link.recv_bytes())
                except (EOFError, OSError):
                    yield from self._lost(worker, waiting)
                    continue
                if kind == "ready":
                    worker.ready = True
                elif kind == "fault":
                    fault = WorkerError(words[0])
                    fault.add_note(words[1])
                    raise fault
                else:
                    yield Event(worker.batch[0], kind, tuple(words))
                if kind in PROGRESS:
                    continue
                if kind != "ready":
                    worker.batch.popleft()
                self._pass_on(worker)
                if not worker.batch and waiting:
                    worker.batch = min(waiting, key=rank)
                    waiting.remove(worker.batch)
                if worker.batch:
                    yield Event(worker.batch[0], "begun")
                    # A worker that is gone is noticed where it is listened to.
                    with suppress(OSError):
                        run = worker.batch[0]
                        link.send_bytes(order(jobs[run], run in fresh))
                else:
                    self._stop([worker])

    def _start(self) -> None:
        worker = self._ahead.take() if self._ahead is not None else None
        if worker is None:
            worker = _Worker.start(self._started, self._setting.threads, self._gpus)
        self._workers[worker.link] = worker
        self._started += 1
        with suppress(OSError):
            worker.link.send_bytes(json.dumps(asdict(self._setting)).encode())

    def _lost(self, worker: _Worker, waiting: deque[deque[int]]) -> Iterator[Event]:
        """A worker died: its run has failed, and what else it was given is left to others."""
        worker.process.wait()
        how = _how(worker.process.returncode, worker.last_line())
        self._stop([worker])
        if not worker.ready:
            raise BenchError(f"A process to compute runs in could not start: {how}")
        yield Event(worker.batch.popleft(), "failed", (f"The process that computed it {how}",))
        if worker.batch:
            waiting.appendleft(worker.batch)
        # Where memory ran out, one fewer may fit.
        killed = worker.process.returncode == -signal.SIGKILL
        if waiting and not (killed and self._workers):
            self._start()

    def _pass_on(self, worker: _Worker) -> None:
        for line in worker.log_text().splitlines():
            if line.strip() and line not in self._told:
                self._told.add(line)
                self._tell(line)

    def _stop(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            self._workers.pop(worker.link, None)
        _end(workers)


def _end(workers: Sequence[_Worker]) -> None:
    """End workers: one that computes is interrupted, and killed if it does not mind."""
    end = monotonic() + STOP_SECONDS
    try:
        for worker in workers:
            worker.link.close()
        for worker in workers:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, end - monotonic()))
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
            worker.log.close()


def _how(status: int, last: str) -> str:
    if status == -signal.SIGKILL:
        return (
            "was killed, as the system does when memory runs out; the same command with "
            "--jobs 1 needs the least memory."
        )
    how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"
    return f"{how}: {last}" if last else f"{how}."
