"""The worker process: compute one run after another and report progress."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quanta_bench.runs.runner import Runner
    from quanta_bench.spec import Job


@dataclass(frozen=True)
class WorkerSettings:
    """Settings shared by all runs of a worker.

    Attributes:
        root: results folder.
        jobs: number of concurrent runs.
        threads: CPU threads of each.
        dtypes: the fastest dtype by device type, as measured by the command: under load, timings
            could differ from row to row.
        loggers: names of the loggers that trainings are followed in.
    """

    root: Path
    jobs: int
    threads: int
    dtypes: tuple[tuple[str, str], ...] = ()
    loggers: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingStep:
    """``done`` of ``total`` optimiser steps are finished."""

    done: int
    total: int


@dataclass(frozen=True)
class ScoringStarted:
    """Scoring starts, with this number of items."""

    total: int


@dataclass(frozen=True)
class ItemsScored:
    """This many more items are scored."""

    count: int


Progress = TrainingStep | ScoringStarted | ItemsScored


class ProgressSender:
    """A :class:`quanta_bench.runs.progress.Reporter` that sends its calls to the command."""

    def __init__(self, send: Callable[[Progress], None]) -> None:
        self._send = send

    def training(self, done: int, total: int) -> None:
        """``done`` of ``total`` optimiser steps are finished."""
        self._send(TrainingStep(done, total))

    def scoring(self, total: int) -> None:
        """Scoring starts."""
        self._send(ScoringStarted(total))

    def scored(self, count: int) -> None:
        """Some items are scored."""
        self._send(ItemsScored(count))


def import_libraries() -> None:
    """Import the libraries for runs, which takes seconds, while the command still reads data."""
    from quanta_bench.utils.quiet import without_collection

    with without_collection():
        import quanta_bench.runs.runner
        import quanta_bench.runs.trainings  # noqa: F401


def compute_run(
    settings: WorkerSettings,
    job: Job,
    fresh: bool,
    halvings: int = 0,
    *,
    tell: Callable[[Progress], None],
) -> str:
    """Compute a run and store its result.

    Args:
        settings: the same for every call in a process.
        job: the run.
        fresh: compute it even if its result is stored.
        halvings: how many times to halve micro-batches.
        tell: called with its progress.

    Returns:
        The run's name in the store.

    Raises:
        RunInProgressError: another process is computing it.
    """
    from quanta_bench.runs.identity import PlannedRun

    runner = _runner(settings)
    runner.reporter = ProgressSender(tell)
    told = len(runner.store.notices)
    try:
        return runner.compute(PlannedRun.of(job), fresh=fresh, halvings=halvings).run
    finally:
        # The parent shows each line that a worker prints there.
        for notice in runner.store.notices[told:]:
            sys.stderr.write(f"{notice}\n")


def settle(settings: WorkerSettings) -> None:
    """Use so many threads, and the dtypes that the command has chosen."""
    import torch

    from quanta_bench.models import precision

    torch.set_num_threads(settings.threads)
    for device, dtype in settings.dtypes:
        precision.settle(device, getattr(torch, dtype))


@cache
def _runner(settings: WorkerSettings) -> Runner:
    """The process's only runner, which keeps data in memory between runs."""
    from quanta_bench.results.store import Store
    from quanta_bench.runs.progress import Silent
    from quanta_bench.runs.runner import Runner

    settle(settings)
    store = Store(settings.root)
    return Runner(store, Silent(), jobs=settings.jobs, loggers=settings.loggers)
