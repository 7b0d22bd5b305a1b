"""Workers on SLURM: job arrays by submitit, whose tasks claim runs like any process.

Nothing that a job leaves is unpickled here: what becomes of runs is read from the results folder,
and which jobs there are from SLURM's queue.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Annotated, Any, Literal

from pydantic import Field

from quanta_bench.errors import BenchError
from quanta_bench.launchers.launch import Patience, last_line
from quanta_bench.launchers.order import Order
from quanta_bench.launchers.watch import wanted
from quanta_bench.launchers.worker import work
from quanta_bench.runs.estimates import peak_memory
from quanta_bench.runs.schedule import PendingRun
from quanta_bench.utils.settings import StrictModel

GIB = 2**30

AUTO_WORKERS = 16
"""The most workers where the user names no number."""

QUEUE_SECONDS = 10.0
"""Interval between looks at SLURM's queue, which all users share."""

COMMAND_SECONDS = 60.0
"""How long a command of SLURM may take."""

MOST_TIMEOUTS = 1000
"""How often a worker that ran out of time is queued again."""

END_SECONDS = 600.0
"""How long a worker that was told to end waits for SLURM to end it."""


LOCAL_SECONDS = 10.0
"""What workers on this machine get to give their leases back, before they are killed."""


class SlurmSettings(StrictModel):
    """What a user sets of SLURM.

    Attributes:
        partition: of the cluster; empty for its default.
        account: to be charged.
        qos: quality of service.
        constraint: features that nodes have to have.
        minutes: of a job; a worker whose time is over is queued again and goes on.
        cpus: CPU cores, and threads, of a worker.
        gpus: GPUs of a worker.
        memory: main memory of a worker in GiB; null for what the largest model is predicted to
            need.
        sbatch: further options of sbatch by their long names, such as {reservation: mine}.
        executor: slurm, or local for processes on this machine by the same code.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    minutes: Annotated[int, Field(ge=1)] = 240
    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    memory: Annotated[float, Field(gt=0)] | None = None
    sbatch: dict[str, str | int] = {}
    executor: Literal["slurm", "local"] = "slurm"


class SlurmLauncher:
    """Starts workers on SLURM.

    Args:
        settings: what the user sets.
        workers: the most workers at once; ``None`` for up to `AUTO_WORKERS`.
        say: tells the user something.
    """

    def __init__(
        self, settings: SlurmSettings, workers: int | None, say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._workers = workers or AUTO_WORKERS
        self._say = say

    @property
    def threads(self) -> int:
        """CPU threads of a worker."""
        return self._settings.cpus

    @property
    def dtype(self) -> str | None:
        """The dtype of GPUs, if workers have any."""
        return "bfloat16" if self._settings.gpus else None

    def connect(self) -> None:
        """See that jobs can be submitted.

        Raises:
            BenchError: submitit or SLURM is not here.
        """
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise BenchError(
                "The launcher slurm needs a package: pip install 'quanta-bench[slurm]'."
            ) from None
        missing = [name for name in ("sbatch", "squeue", "srun") if shutil.which(name) is None]
        if missing and self._settings.executor == "slurm":
            raise BenchError(
                f"There is no {missing[0]} here: run the command where SLURM's commands are, as on "
                "the login node of a cluster."
            )

    def launch(self, order: Order, runs: Sequence[PendingRun]) -> SlurmWorkers:
        """Prepare to compute an order."""
        sizes = [peak_memory(runs[batch[0]].planned) for batch in order.batches]
        known = max((size for size in sizes if size is not None), default=None)
        return SlurmWorkers(order, self._settings, known, self._workers, self._say)

    def close(self) -> None:
        """Nothing is held."""


class SlurmWorkers:
    """The jobs of an order.

    Args:
        order: the order.
        settings: what the user sets.
        memory: predicted bytes of the largest run; ``None`` if unknown.
        most: how many workers there are at once.
        say: tells the user something.
    """

    def __init__(
        self,
        order: Order,
        settings: SlurmSettings,
        memory: float | None,
        most: int,
        say: Callable[[str], None],
    ) -> None:
        self._order = order
        self._settings = settings
        self._memory = memory
        self._most = most
        self._say = say
        self._jobs: list[Any] = []
        self._live = 0
        self._looked = -QUEUE_SECONDS
        self._patience = Patience()

    def __str__(self) -> str:
        where = "this machine" if self._settings.executor == "local" else "SLURM"
        return f"{len(self._jobs)} workers on {where}, {', '.join(self._arrays)}"

    @property
    def _arrays(self) -> list[str]:
        """The numbers of the job arrays."""
        return list(dict.fromkeys(str(job.job_id).split("_")[0] for job in self._jobs))

    def supply(self, free: Sequence[int], left: int, progress: int) -> None:
        """Submit workers where fewer than needed are in the queue.

        Raises:
            BenchError: SLURM refuses them, or they end and compute nothing.
        """
        count = wanted(len(free), left, 0, self._most)
        if not count or monotonic() - self._looked < QUEUE_SECONDS:
            return
        self._looked = monotonic()
        count = wanted(len(free), left, self._count_live(), self._most)
        if not count:
            return
        if self._jobs:
            self._patience.problem = self._last_words()
        self._patience.started(progress)
        self._submit(count)
        # Where the next question is not answered, these count too.
        self._live += count

    def stop(self) -> None:
        """End all jobs."""
        if self._settings.executor == "local":
            for job in self._jobs:
                # The process that submitit started, which tells its worker.
                with suppress(ProcessLookupError):
                    os.kill(int(job.job_id), signal.SIGTERM)
            end = monotonic() + LOCAL_SECONDS
            while self._count_live() and monotonic() < end:
                time.sleep(0.1)
            for job in self._jobs:
                job.cancel(check=False)
        elif self._jobs:
            _run("scancel", "--quiet", *self._arrays)

    def _submit(self, count: int) -> None:
        import submitit

        executor = submitit.AutoExecutor(
            self._order.folder / "slurm",
            cluster=self._settings.executor,
            slurm_max_num_timeout=MOST_TIMEOUTS,
        )
        executor.update_parameters(**self._parameters())
        started = len(self._jobs)
        numbers = range(started, started + count)
        try:
            self._jobs += executor.map_array(
                SlurmWorker(),
                [self._order.folder] * count,
                numbers,
                [self._most] * count,
            )
        except (submitit.core.utils.FailedJobError, subprocess.SubprocessError, OSError) as error:
            raise BenchError(f"SLURM refused the workers: {last_line(str(error))}") from error
        self._say(f"{self}.")

    def _parameters(self) -> dict[str, Any]:
        """The parameters of submitit."""
        settings = self._settings
        memory = settings.memory
        if memory is None and self._memory is not None:
            memory = self._memory / GIB
        parameters: dict[str, Any] = {
            "name": "quanta-bench",
            "timeout_min": settings.minutes,
            "cpus_per_task": settings.cpus,
            "gpus_per_node": settings.gpus or None,
            # Whole ones, as people write them.
            "mem_gb": None if memory is None else -int(-memory // 1),
            # Since SLURM 22.05 a step no longer has the cores of its job by itself.
            "slurm_srun_args": [f"--cpus-per-task={settings.cpus}"],
            "slurm_array_parallelism": self._most,
            "slurm_additional_parameters": {"requeue": True, **settings.sbatch},
        }
        for name in ("partition", "account", "qos", "constraint"):
            parameters[f"slurm_{name}"] = getattr(settings, name) or None
        return {key: value for key, value in parameters.items() if value is not None}

    def _count_live(self) -> int:
        """How many workers run or will; as many as before if SLURM does not answer."""
        if not self._jobs:
            return 0
        if self._settings.executor == "local":
            return sum(not job.done() for job in self._jobs)
        words = ("--noheader", "--array", f"--user={os.getuid()}", "--format=%F %T")
        answer = _run("squeue", *words)
        if answer is not None:
            rows = [line.split() for line in answer.splitlines()]
            ours = {*self._arrays}
            self._live = sum(
                row[0] in ours and row[1] != "COMPLETING" for row in rows if len(row) == 2
            )
        return self._live

    def _last_words(self) -> str:
        """The last line that the last worker with anything to say wrote."""
        logs = sorted((self._order.folder / "slurm").glob("*.err"), key=os.path.getmtime)
        for path in reversed(logs):
            line = last_line(path.read_text("utf-8", errors="replace"))
            if line:
                return f"One wrote: {line} (in {path})"
        return ""


class SlurmWorker:
    """What a job computes.

    A job whose time is over is told by a signal. It gives its leases back at once, so that nobody
    waits for them, and is queued again. Told to end by SIGTERM, as before a preemption, it does the
    same and then waits for its end: SLURM does not queue a job again that ends by itself.
    """

    def __call__(self, folder: Path, worker: int, workers: int) -> None:
        """Claim runs and compute them; see :func:`quanta_bench.launchers.worker.work`."""
        from submitit.core.job_environment import JobEnvironment

        number = JobEnvironment._usr_sig()
        queue_again = signal.getsignal(number)
        end: list[BaseException] = []

        def time_is_over(number: int, frame: FrameType | None) -> None:
            try:
                if callable(queue_again):
                    queue_again(number, frame)
            except (Exception, SystemExit) as error:
                # submitit ends the process so. In the middle of a run, that would be a crash.
                end.append(error)
            raise KeyboardInterrupt

        def terminate(number: int, frame: FrameType | None) -> None:
            signal.signal(number, signal.SIG_IGN)
            raise KeyboardInterrupt

        signal.signal(number, time_is_over)
        signal.signal(signal.SIGTERM, terminate)
        try:
            work(folder, worker, workers)
        except KeyboardInterrupt:
            if end:
                raise end[0] from None
            if "SLURM_JOB_ID" in os.environ:
                time.sleep(END_SECONDS)

    def checkpoint(self, *arguments: Any) -> Any:
        """What a job computes that is queued again: the same, since all else is in the store."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def _run(*words: str) -> str | None:
    """What a command of SLURM prints; ``None`` if it fails."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=True, timeout=COMMAND_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
