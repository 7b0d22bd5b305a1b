"""A process beside the command's own that computes runs: ``python -m quanta_bench.runs.worker``.

It speaks with :mod:`quanta_bench.runs.worker_pool` over a socket, in JSON: first a `Setting`, then
one order a run; back come progress and how each run ended. Results pass through the store. When
the socket closes, because the command stopped or is gone, the run is interrupted as Ctrl-C would.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quanta_bench.spec import Job

STOP = signal.SIGUSR2
LONGEST_END = 30.0
"""Seconds after which a process that is still busy ends in any case."""

PROGRESS = ("training", "scoring", "scored")
"""Messages that are calls of a :class:`quanta_bench.runs.progress.Reporter`."""


@dataclass(frozen=True)
class Setting:
    """What holds for all runs of a worker.

    Attributes:
        root: results folder.
        jobs: how many runs are computed at once.
        threads: processor threads of each.
        dtypes: the fastest dtype by type of device, as the command found it.
    """

    root: str
    jobs: int
    threads: int
    dtypes: dict[str, str]


def order(job: Job, fresh: bool) -> bytes:
    """A run as it is sent to a worker."""
    specs = {"training": job.training, "evaluation": job.evaluation}
    dumped = {name: spec.model_dump(mode="json") for name, spec in specs.items()}
    return json.dumps({"label": job.label, **dumped, "fresh": fresh}).encode()


class _Messenger:
    """Sends a run's progress to the command."""

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send

    def training(self, done: int, total: int) -> None:
        self._send("training", done, total)

    def scoring(self, total: int) -> None:
        self._send("scoring", total)

    def scored(self, count: int) -> None:
        self._send("scored", count)


def main() -> None:
    """Compute what is ordered until the socket closes."""
    # A terminal sends Ctrl-C to every process of a command; the command alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(STOP, _interrupt)
    link = Connection(int(sys.argv[1]))
    orders: SimpleQueue[bytes] = SimpleQueue()

    def send(*words: Any) -> None:
        link.send_bytes(json.dumps(words).encode())

    try:
        # From here on the socket may close, and the interruption comes.
        threading.Thread(target=_listen, args=(link, orders), daemon=True).start()
        _import()
        setting = Setting(**json.loads(orders.get()))
        _compute(setting, _each(orders), send)
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # the command stopped or is gone


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _each(orders: SimpleQueue[bytes]) -> Iterator[bytes]:
    while True:  # until interrupted
        yield orders.get()


def _listen(link: Connection, orders: SimpleQueue[bytes]) -> None:
    try:
        while True:
            orders.put(link.recv_bytes())
    except (EOFError, OSError):
        os.kill(os.getpid(), STOP)
        time.sleep(LONGEST_END)
        os._exit(1)


def _import() -> None:
    """Import what runs need, while the command still reads data."""
    from quanta_bench.utils.quiet import without_collection

    with without_collection():
        import quanta_bench.runs.runner  # noqa: F401


def _compute(setting: Setting, orders: Iterable[bytes], send: Callable[..., None]) -> None:
    from pathlib import Path

    import torch

    from quanta_bench.errors import BenchError, UsageError
    from quanta_bench.models import precision
    from quanta_bench.results.store import Store
    from quanta_bench.runs.progress import Silent
    from quanta_bench.runs.runner import Runner
    from quanta_bench.spec import EvaluationSpec, Job, TrainingSpec

    torch.set_num_threads(setting.threads)
    for device, dtype in setting.dtypes.items():
        precision.settle(device, getattr(torch, dtype))
    runner = Runner(Store(Path(setting.root)), Silent(), jobs=setting.jobs)
    send("ready")
    for text in orders:
        said = json.loads(text)
        job = Job(
            said["label"],
            TrainingSpec.model_validate(said["training"]),
            EvaluationSpec.model_validate(said["evaluation"]),
        )
        runner.reporter = _Messenger(send)
        try:
            result = runner.run(job, fresh=said["fresh"])
        except UsageError as error:
            send("refused", str(error))
        except (BenchError, RuntimeError, MemoryError) as error:
            send("failed", str(error))
        except Exception as error:
            send("fault", f"{type(error).__name__}: {error}", traceback.format_exc())
        else:
            send("done", result.run)


if __name__ == "__main__":
    main()
