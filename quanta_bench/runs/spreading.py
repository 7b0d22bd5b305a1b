"""One run over several devices: a group of processes, each with a device and a share of the items.

The command starts the processes, watches them and ends them; none outlives it. The leading one
holds the lease of the training, reports progress and stores; all of them load the model, train it
by Lightning and score. If one ends or fails, the others, which wait for it, are ended too.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, Any

import torch

from quanta_bench.data import loader
from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError, RunKilledError
from quanta_bench.models.precision import dtype_name, fast_dtype
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.devices import Devices
from quanta_bench.runs.identity import Identity, PlannedRun
from quanta_bench.runs.progress import Reporter, Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.worker import (
    ItemsScored,
    Progress,
    ProgressSender,
    ScoringStarted,
    TrainingStep,
    WorkerSettings,
    settle,
)
from quanta_bench.spec import Job
from quanta_bench.utils.device import this_device
from quanta_bench.utils.process_group import Group, joined
from quanta_bench.utils.processes import (
    ChildDiedError,
    ChildProcess,
    Message,
    Raised,
    Reply,
    close_all,
    printed_lines,
)

SECONDS_FOR_THE_CAUSE = 5.0
"""After the leading process has lost another one, how long to wait for word of why."""


def runner_for(
    devices: Devices,
    store: Store,
    reporter: Reporter,
    pools: Pools | None = None,
    *,
    loggers: Sequence[str] = (),
) -> Runner:
    """What computes runs on these devices.

    Raises:
        UsageError: there are not as many.
    """
    if devices.count == 1:
        return Runner(store, reporter, pools, loggers=loggers)
    devices.check_here()
    return SpreadRunner(store, reporter, pools, devices=devices, loggers=loggers)


class SpreadRunner(Runner):
    """Lets each run be computed by a group of processes.

    Args:
        store: where results go.
        reporter: receives progress.
        pools: where items come from, for the names of runs; the processes read their own.
        devices: how many processes, and how they share a run.
        loggers: names of the loggers that the leading process follows trainings in.
    """

    def __init__(
        self,
        store: Store,
        reporter: Reporter,
        pools: Pools | None = None,
        *,
        devices: Devices,
        loggers: Sequence[str] = (),
    ) -> None:
        super().__init__(store, reporter, pools, loggers=loggers)
        self.devices = devices

    def find_or_compute(self, planned: PlannedRun, fresh: bool) -> Result:
        """A stored result, or that of a new group of processes."""
        names = self.identify(planned)
        stored = self.stored_result(planned, names)
        if stored is not None and not fresh:
            return stored
        again = fresh and names.training in self.renewed
        self._compute_in_group(_Order(planned.job, names, fresh, again, loader.halvings()))
        if fresh:
            self.renewed.add(names.training)
        result = self.stored_result(planned, names)
        if result is None:
            raise BenchError(f"The result of {planned.label} is not where it was stored.")
        return result

    def _compute_in_group(self, order: _Order) -> None:
        count = self.devices.count
        kind = this_device().type
        settings = WorkerSettings(
            self.store.root.absolute(),
            self.jobs,
            max(1, torch.get_num_threads() // count),
            ((kind, dtype_name(fast_dtype(kind))),),
            tuple(self.loggers),
        )
        with tempfile.TemporaryDirectory(prefix="quanta-bench-") as folder:
            seats = [_Seat(rank, self.devices, Path(folder) / "meeting") for rank in range(count)]
            with _started(seats, settings.threads) as (members, logs):
                try:
                    for seat, member in zip(seats, members, strict=True):
                        member.call(take_part, settings, seat, order, tells=True)
                    _watch(members, self._report)
                finally:
                    for line in printed_lines(logs[0]):
                        self.store.notice(line)

    def _report(self, progress: Progress) -> None:
        match progress:
            case TrainingStep(done, total):
                self.reporter.training(done, total)
            case ScoringStarted(total):
                self.reporter.scoring(total)
            case ItemsScored(items):
                self.reporter.scored(items)


@dataclass(frozen=True)
class _Order:
    """What a group is to compute.

    Attributes:
        job: the run.
        names: its names, which need not be found again by each process.
        fresh: compute it even if it is stored.
        renewed: its training was computed again for another evaluation of it.
        halvings: how many times to halve micro-batches.
    """

    job: Job
    names: Identity
    fresh: bool
    renewed: bool
    halvings: int


@dataclass(frozen=True)
class _Seat:
    """A process's place in its group, before it has joined."""

    rank: int
    devices: Devices
    meeting: Path


class _Member(Runner):
    """Computes one run as a process of a group; the command notes how it fails."""

    def __init__(
        self,
        settings: WorkerSettings,
        reporter: Reporter,
        group: Group,
        strategy: str,
        order: _Order,
    ) -> None:
        super().__init__(
            Store(settings.root),
            reporter,
            jobs=settings.jobs,
            group=group,
            strategy=strategy,
            loggers=settings.loggers,
        )
        self._order = order
        if order.renewed:
            self.renewed.add(order.names.training)

    def identify(self, planned: PlannedRun) -> Identity:
        """The names that the command has found."""
        return self._order.names

    def note(self, planned: PlannedRun, error: BenchError) -> None:
        """Leave it to the command, which hears of it from several processes."""

    def find_or_compute(self, planned: PlannedRun, fresh: bool) -> Result:
        """The leading process looks and holds the lease; the others wait until it begins."""
        if self.group.leads:
            return super().find_or_compute(planned, fresh)
        return self.compute_share(planned, self._order.names)


def take_part(
    settings: WorkerSettings, seat: _Seat, order: _Order, *, tell: Callable[[Progress], None]
) -> None:
    """Compute a process's share of a run; the leading one stores its result.

    Raises:
        BenchError: see `Runner.compute`.
    """
    settle(settings)
    group = joined(seat.rank, seat.devices.count, seat.meeting)
    member = _Member(
        settings,
        ProgressSender(tell) if group.leads else Silent(),
        group,
        seat.devices.strategy,
        order,
    )
    try:
        member.compute(PlannedRun.of(order.job), fresh=order.fresh, halvings=order.halvings)
    finally:
        for notice in member.store.notices:
            sys.stderr.write(f"{notice}\n")


@contextmanager
def _started(
    seats: list[_Seat], threads: int
) -> Iterator[tuple[list[ChildProcess], list[IO[bytes]]]]:
    """A process for each seat, with what it prints; ended with the block."""
    environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if Path("/sys/class/net/lo").exists():
        # All are here, and the machine's name may lead to an address that nobody answers at.
        environment["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    members: list[ChildProcess] = []
    logs: list[IO[bytes]] = []
    try:
        for _ in seats:
            logs.append(tempfile.TemporaryFile())  # noqa: SIM115 - closed below
            members.append(ChildProcess(log=logs[-1], environment=environment))
        yield members, logs
    finally:
        try:
            # The leading one last: without the others it does not wait any more, and can put its
            # files in order.
            close_all(members[1:], grace=0)
            close_all(members[:1])
        finally:
            for log in logs:
                log.close()


def _watch(members: list[ChildProcess], report: Callable[[Progress], None]) -> None:
    """Wait until the leading process has stored the run.

    Raises:
        RunKilledError: one of them ended.
        BenchError: whatever one of them raised.
    """
    ranks: dict[Any, int] = {member.connection: rank for rank, member in enumerate(members)}
    lost: Exception | None = None
    while True:
        ready = wait(list(ranks), SECONDS_FOR_THE_CAUSE if lost else None)
        if lost and not ready:
            raise lost
        for connection in ready:
            rank = ranks[connection]
            reply = _reply(members[rank], rank, len(members))
            if isinstance(reply, Message):
                report(reply.content)
            elif isinstance(reply, Raised):
                if lost or not isinstance(reply.error, RunKilledError):
                    raise reply.error
                # It has lost another one, which may be about to say why.
                lost = reply.error
                del ranks[connection]
            elif rank == 0:
                return
            else:
                del ranks[connection]


def _reply(member: ChildProcess, rank: int, count: int) -> Reply:
    try:
        return member.receive()
    except ChildDiedError as error:
        raise RunKilledError(
            f"Process {rank + 1} of the {count} that computed it {error}."
        ) from None
