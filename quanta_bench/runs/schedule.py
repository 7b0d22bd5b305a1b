"""Schedule runs: their order, and how many are computed at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from quanta_bench.errors import OutOfMemoryError
from quanta_bench.results.records import Result
from quanta_bench.runs.cells import Cells
from quanta_bench.runs.concurrency import Resources, available_resources, runs_at_once, threads_each
from quanta_bench.runs.estimates import DurationEstimator, peak_memory
from quanta_bench.runs.identity import PlannedRun


@dataclass
class PendingRun:
    """A run to be computed.

    Attributes:
        name: its name, as shown to the user.
        seed: its seed.
        planned: the run.
        cells: where its result goes; rows that amount to the same run share it, for example if one
            small model replaces several.
        work: its estimated work, in scored items.
        fresh: whether to recompute it although it is stored.
        errors: of failed attempts in this command.
    """

    name: str
    seed: int
    planned: PlannedRun
    cells: list[tuple[Cells, int]] = field(default_factory=list)
    work: float = 1.0
    fresh: bool = False
    errors: list[Exception] = field(default_factory=list)

    @property
    def halvings(self) -> int:
        """How many times its micro-batches have to be halved to fit into memory."""
        return sum(isinstance(error, OutOfMemoryError) for error in self.errors)

    def fail(self, error: Exception) -> None:
        """Leave its cells empty, for this reason."""
        for cells, _ in self.cells:
            cells.failed.append(f"{self.name}: {error}")

    def finish(self, result: Result) -> None:
        """Add the result to the cells that wait for it."""
        for cells, seed in self.cells:
            cells.add(seed, result)


@dataclass(frozen=True)
class Schedule:
    """How runs are computed.

    Attributes:
        batches: indices of runs, grouped by training: seed by seed, and within a seed those with
            the most work first.
        jobs: number of batches computed at once.
        threads: CPU threads of each.
        resources: the resources available.
    """

    batches: list[list[int]]
    jobs: int
    threads: int
    resources: Resources

    @classmethod
    def of(cls, runs: Sequence[PendingRun], jobs: int | None) -> Schedule:
        """Schedule runs.

        Args:
            runs: at least one.
            jobs: maximum number of concurrent runs; ``None`` to let
                :func:`quanta_bench.runs.concurrency.runs_at_once` decide.
        """
        by_training: dict[str, list[int]] = {}
        for number, run in enumerate(runs):
            by_training.setdefault(run.planned.training_key, []).append(number)
        batches = sorted(
            by_training.values(),
            key=lambda batch: (runs[batch[0]].seed, -sum(runs[n].work for n in batch)),
        )
        resources = available_resources()
        if jobs is None:
            alone = len(batches) == 1 or resources.gpus or resources.cores == 1
            memory = [None if alone else peak_memory(runs[batch[0]].planned) for batch in batches]
            jobs = runs_at_once(resources, memory)
        else:
            jobs = min(jobs, len(batches))
        threads = threads_each(resources.cores, jobs, torch.get_num_threads())
        return cls(batches, jobs, threads, resources)

    def __str__(self) -> str:
        each = "one thread each" if self.threads == 1 else f"{self.threads} threads each"
        return f"Computing {self.jobs} runs at a time, {each} (--jobs 1 for one after another)."


def rank(runs: Sequence[PendingRun], estimator: DurationEstimator) -> tuple[int, float]:
    """Sort key for starting batches: seed by seed, the longest first.

    A long run started last would leave the other cores idle.
    """
    seconds = sum(estimator.seconds(run.planned.label, run.work) for run in runs)
    return runs[0].seed, -seconds
