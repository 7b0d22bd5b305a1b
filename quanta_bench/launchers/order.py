"""What workers are to compute: a folder in the results folder that all of them read."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ValidationError

from quanta_bench.errors import BenchError
from quanta_bench.launchers.ledger import Entry, Ledger
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.schedule import PendingRun, Schedule
from quanta_bench.spec import EvaluationSpec, Job, TrainingSpec
from quanta_bench.utils.folders import whole_file

FOLDER = "launches"
"""Where orders are, in the results folder."""

KEPT_SECONDS = 24 * 3600.0
"""How long the folder of a launch whose runs are all finished stays, for its logs."""


class OrderedRun(BaseModel):
    """A run of an order.

    Attributes:
        name: its name, as shown to the user.
        seed: its seed.
        label: the row it belongs to.
        training: what to train.
        evaluation: how to score it.
        run: its name in the store, as the command sees it.
    """

    name: str
    seed: int
    label: str
    training: TrainingSpec
    evaluation: EvaluationSpec
    run: str

    def pending(self) -> PendingRun:
        """The run, planned again."""
        job = Job(self.label, self.training, self.evaluation)
        return PendingRun(self.name, self.seed, PlannedRun.of(job))


class Order(BaseModel):
    """What the workers of one launch compute.

    Attributes:
        folder: the order's own folder, in the results folder.
        directory: the directory that relative paths start from.
        runs: the runs.
        batches: indices of runs that share a training, in the order of computation.
        outdated: see :class:`quanta_bench.runs.runner.Runner`.
        dtype: what ``precision="auto"`` stands for on every worker, so that all of them give a run
            the same name.
        loggers: names of the loggers that trainings are followed in.
        threads: CPU threads of each worker; 0 to leave them as they are.
        jobs: how many runs are computed at once on a machine; recorded.
    """

    folder: Path
    directory: Path
    runs: list[OrderedRun]
    batches: list[list[int]]
    outdated: dict[str, str]
    dtype: str
    loggers: list[str] = []
    threads: int = 0
    jobs: int = 1

    @classmethod
    def make(
        cls,
        runs: Sequence[PendingRun],
        runner: Runner,
        *,
        dtype: str,
        threads: int = 0,
        jobs: int = 1,
    ) -> Order:
        """An order of runs, written into the runner's store.

        Args:
            runs: the runs.
            runner: knows their names; afterwards it does not count outdated results either.
            dtype: see the attributes, like the rest.
        """
        outdated = _outdate(runs, runner)
        root = runner.store.root.absolute()
        order = cls(
            folder=root / FOLDER / uuid.uuid4().hex[:12],
            directory=Path.cwd(),
            runs=[
                OrderedRun(
                    name=run.name,
                    seed=run.seed,
                    run=runner.identify(run.planned).run,
                    **vars(run.planned.job),
                )
                for run in runs
            ],
            batches=Schedule.of(runs, 1).batches,
            outdated=outdated,
            dtype=dtype,
            loggers=list(runner.loggers),
            threads=threads,
            jobs=jobs,
        )
        with runner.store.writing(), whole_file(order.folder / "order.json") as stream:
            stream.write(order.model_dump_json(indent=1).encode())
        return order

    @classmethod
    def read(cls, folder: Path) -> Order:
        """The order in a folder, which may be mounted elsewhere than where it was written.

        Raises:
            BenchError: there is none.
        """
        try:
            order = cls.model_validate_json((folder / "order.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise BenchError(
                f"{folder} holds no order of runs; workers need the command's results folder under "
                f"the same path. ({error})"
            ) from error
        return order.model_copy(update={"folder": folder})

    @property
    def root(self) -> Path:
        """The results folder."""
        return self.folder.parent.parent

    @cached_property
    def ledger(self) -> Ledger:
        """The attempts at its runs."""
        return Ledger(self.folder / "runs")

    @property
    def stopped(self) -> BenchError | None:
        """Why no other run of the order can succeed; ``None`` if nothing is known."""
        with suppress(OSError, ValidationError):
            return Entry.model_validate_json((self.folder / "stopped.json").read_bytes()).error
        return None

    def stop(self, error: BenchError) -> None:
        """Let all workers know that no other run can succeed."""
        entry = Entry(
            event="failed",
            host="",
            process=os.getpid(),
            kind=type(error).__name__,
            cause=str(error),
        )
        with suppress(OSError), whole_file(self.folder / "stopped.json") as stream:
            stream.write(entry.model_dump_json().encode())

    def remove(self) -> None:
        """Remove the order's folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_finished(root: Path) -> None:
    """Remove the folders of earlier launches whose runs are all finished.

    Args:
        root: the results folder.
    """
    for path in root.glob(f"{FOLDER}/*/order.json"):
        with suppress(BenchError, OSError, ValueError):
            order = Order.read(path.parent)
            done = all(_is_done(root / "runs" / one.run, order) for one in order.runs)
            if done and time.time() - path.stat().st_mtime > KEPT_SECONDS:
                order.remove()


def _is_done(folder: Path, order: Order) -> bool:
    """Whether a run has a result, and another one than the order is to replace."""
    path = folder / "result.json"
    before = order.outdated.get(folder.name)
    if before is None:
        return path.exists()
    return str(json.loads(path.read_bytes()).get("checksum")) != before


def _outdate(runs: Sequence[PendingRun], runner: Runner) -> Mapping[str, str]:
    """Forget the trainings of runs that are to be computed again; their results by checksum."""
    for run in runs:
        if not run.fresh:
            continue
        found = runner.find(run.planned)
        if found is not None:
            runner.outdated[found.run] = found.checksum
    for training in {runner.identify(run.planned).training for run in runs if run.fresh}:
        # Another process that computes it at the moment does so anew.
        if runner.store.leases.is_free(training):
            runner.renew(training)
    return runner.outdated
