"""A cluster in simulated time: workers of the real claim loop and leases, on a simulated clock.

Each worker is a thread, and one thread runs at a time: who waits hands over to whoever is next on
the clock, so that nothing really waits and every simulation comes out the same. What a worker does
in the shared folder takes `OPERATION_SECONDS`. A preempted worker vanishes where it stands; its
lease, its open attempt and its place in the folder stay as they were.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quanta_bench.launchers import watch, worker
from quanta_bench.launchers.ledger import Ledger
from quanta_bench.launchers.order import Order
from quanta_bench.launchers.watch import Watch, wanted
from quanta_bench.launchers.worker import Claimant, in_turn
from quanta_bench.results import leases
from quanta_bench.results.store import Store
from quanta_bench.runs import claims
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.schedule import PendingRun

OPERATION_SECONDS = 0.005
"""Of one operation in a folder that a network file system shares."""

START_SECONDS = 60.0
"""From when the command asks for a worker until it runs: the queue, and imports."""


class Killed(BaseException):
    """Unwinds the thread of a worker that is gone."""


@dataclass
class Worker:
    """A worker, and where its time went, in seconds.

    Attributes:
        name: stands for its machine.
        started: when.
        ended: when; ``None`` while it runs.
        claiming: in the shared folder.
        waiting: for runs of others.
    """

    name: str
    started: float
    ended: float | None = None
    claiming: float = 0.0
    waiting: float = 0.0
    killed: bool = False
    turn: threading.Lock = field(default_factory=threading.Lock)


class World:
    """The clock and the threads on it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.current: Worker | None = None
        self.workers: list[Worker] = []
        self._events: list[tuple[float, int, Worker | Callable[[], None]]] = []
        self._number = itertools.count()
        self._back = threading.Lock()
        self._back.acquire()
        self._errors: list[BaseException] = []

    def at(self, time: float, what: Worker | Callable[[], None]) -> None:
        """Wake a worker, or call a function, at a time."""
        heapq.heappush(self._events, (time, next(self._number), what))

    def start(self, name: str, work: Callable[[], None], delay: float = 0.0) -> Worker:
        """Start a worker."""
        one = Worker(name, self.now + delay)
        one.turn.acquire()
        self.workers.append(one)
        threading.Thread(target=self._live, args=(one, work), daemon=True).start()
        self.at(one.started, one)
        return one

    def kill(self, one: Worker) -> None:
        """Let a worker vanish where it stands."""
        if one.ended is None:
            one.killed, one.ended = True, self.now
            self._hand_to(one)

    def pause(self, seconds: float) -> None:
        """Let the current worker do nothing else for a while."""
        me = self.current
        assert me is not None
        self.check()
        self.at(self.now + seconds, me)
        self._back.release()
        me.turn.acquire()
        self.check()

    def check(self) -> None:
        """Raise an error in a worker that is gone: it can do nothing any more."""
        if self.current is not None and self.current.killed:
            raise Killed

    def run(self) -> None:
        """Let time pass until nothing is left to happen."""
        while self._events:
            time, _, what = heapq.heappop(self._events)
            self.now = max(self.now, time)
            if not isinstance(what, Worker):
                what()
            elif what.ended is None:
                self._hand_to(what)
            if self._errors:
                raise self._errors[0]

    def _hand_to(self, one: Worker) -> None:
        before, self.current = self.current, one
        one.turn.release()
        self._back.acquire()
        self.current = before

    def _live(self, me: Worker, work: Callable[[], None]) -> None:
        me.turn.acquire()
        try:
            self.check()
            work()
        except Killed:
            pass
        except BaseException as error:
            self._errors.append(error)
        finally:
            if me.ended is None:
                me.ended = self.now
            self._back.release()


class SimulatedHeart:
    """Beats on the simulated clock; stands in for :class:`quanta_bench.results.leases.Heart`."""

    world: World

    def __init__(self, beat: Callable[[], None], name: str) -> None:
        self._beat_it = beat
        self._owner = self.world.current
        self._stopped = False
        self._next()

    def _next(self) -> None:
        self.world.at(self.world.now + leases.HEARTBEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        if not self._stopped and not (self._owner and self._owner.killed):
            self._beat_it()
            self._next()

    def stop(self) -> None:
        self.world.check()
        self._stopped = True


@dataclass
class Attempt:
    """An attempt at a run.

    Attributes:
        run: its name.
        began: when.
        ended: when; for a preempted one, when its worker vanished.
        stored: whether it left the result.
    """

    run: str
    began: float
    ended: float = float("inf")
    stored: bool = False


class Cluster:
    """A launch of many runs on many workers, some of which are preempted.

    Args:
        root: an empty results folder, for leases.
        runs: number of runs.
        workers: the most workers at once.
        preempted: share of attempts whose worker is preempted within them.
        seconds: mean duration of a run.
        monkeypatch: puts the simulated clock in the place of the real one.
    """

    def __init__(
        self,
        root: Path,
        runs: int,
        workers: int,
        preempted: float,
        monkeypatch: pytest.MonkeyPatch,
        *,
        seconds: float = 600.0,
        seed: int = 0,
    ) -> None:
        self.world = World()
        self.random = random.Random(seed)
        self.preempted = preempted
        self.most = workers
        self.preemptions = 0
        self.results: dict[str, Any] = {}
        self.attempts: list[Attempt] = []
        self.finished: list[str] = []
        self.failed: list[str] = []
        spread = [self.random.lognormvariate(0.0, 0.5) for _ in range(runs)]
        mean = sum(spread) / runs
        durations = sorted((seconds * one / mean for one in spread), reverse=True)
        self.duration = {f"t{n}": length for n, length in enumerate(durations)}
        self.order = Order(
            folder=root / "launches" / "one",
            directory=root,
            runs=[],
            batches=[[n] for n in range(runs)],
            outdated={},
            dtype="float32",
        )
        self.order.__dict__["ledger"] = SimulatedLedger(self)
        self.root = root
        self._ordered = [_run(name) for name in self.duration]
        self._patch(monkeypatch)

    def run(self) -> None:
        """Simulate the launch from start to end."""
        self.command = self.world.start("command", self._command)
        self.world.run()

    # What is measured.

    @property
    def workers(self) -> list[Worker]:
        return [one for one in self.world.workers if one is not self.command]

    @property
    def alive(self) -> float:
        """Seconds that all workers together were there."""
        return sum((one.ended or 0.0) - one.started for one in self.workers)

    @property
    def overhead(self) -> float:
        """Share of the workers' time that went into claiming and waiting."""
        return sum(one.claiming + one.waiting for one in self.workers) / self.alive

    @property
    def lost(self) -> int:
        """Runs without a result."""
        return len({run.run for run in self._ordered} - self.results.keys())

    @property
    def repeated(self) -> int:
        """Attempts that the leases should have prevented.

        Those that began while another one at the same run went on, or after it was finished.
        """
        count = 0
        last: dict[str, Attempt] = {}
        for attempt in sorted(self.attempts, key=lambda one: one.began):
            before = last.get(attempt.run)
            count += before is not None and (before.stored or before.ended > attempt.began)
            last[attempt.run] = attempt
        return count

    # What happens.

    def charge(self, operations: int = 1) -> None:
        """Let the current worker use the shared folder; what the command does costs no worker."""
        me = self.world.current
        if me is not None and me is not self.command:
            self.world.check()
            me.claiming += OPERATION_SECONDS * operations
            self.world.pause(OPERATION_SECONDS * operations)

    def wait(self, seconds: float) -> None:
        """Let the current worker sleep."""
        me = self.world.current
        assert me is not None
        me.waiting += seconds
        self.world.pause(seconds)

    def compute(self, store: Store, run: str, training: str) -> Any:
        """Compute a run, or vanish in the middle of it."""
        me = self.world.current
        assert me is not None
        attempt = Attempt(run, self.world.now)
        self.attempts.append(attempt)
        length = self.duration[training]
        if self.random.random() < self.preempted:
            self.preemptions += 1
            end = self.world.now + length * self.random.random()
            self.world.at(end, lambda: self._preempt(me, attempt))
        self.world.pause(length)
        store.leases.confirm(training)
        attempt.ended, attempt.stored = self.world.now, True
        self.results[run] = SimpleNamespace(run=run, checksum="")
        return self.results[run]

    def _preempt(self, one: Worker, attempt: Attempt) -> None:
        attempt.ended = self.world.now
        self.world.kill(one)

    def _command(self) -> None:
        runs = self._pending()
        observer: Any = Ends(self)
        Watch(self.order, runs, self._runner(), observer).wait(self)

    def supply(self, free: list[int], left: int, progress: int) -> None:
        """Start workers, by the rule of job arrays."""
        live = sum(one.ended is None for one in self.workers)
        for _ in range(wanted(len(free), left, live, self.most)):
            number = len(self.workers)
            self.world.start(f"w{number}", lambda n=number: self._work(n), START_SECONDS)

    def stop(self) -> None: ...

    def _work(self, number: int) -> None:
        turns = in_turn(self.order.batches, number, self.most)
        runs = self._pending()
        screen: Any = SimpleNamespace(begin=lambda *_: Line(), tell=lambda _: None)
        Claimant(self.order, self._runner(), screen).compute([runs[n] for (n,) in turns])

    def _pending(self) -> list[PendingRun]:
        return [PendingRun(run.run, 0, run.planned) for run in self._ordered]

    def _runner(self) -> Runner:
        return SimulatedRunner(self)

    def _patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = self.world
        clock = lambda: world.now  # noqa: E731
        for module in (claims, leases, worker):
            monkeypatch.setattr(module, "monotonic", clock)
        sleeping = SimpleNamespace(sleep=self.wait, time=clock)
        for module in (claims, watch):
            monkeypatch.setattr(module, "time", sleeping)
        # The command need not look as often as where somebody watches it.
        monkeypatch.setattr(watch, "POLL_SECONDS", 10.0)
        monkeypatch.setattr(SimulatedHeart, "world", world, raising=False)
        monkeypatch.setattr(leases, "Heart", SimulatedHeart)
        monkeypatch.setattr(
            leases, "_machine", lambda: world.current.name if world.current else "clock"
        )
        for name, operations in (("_create", 4), ("_read", 1), ("_remove", 4)):
            plain = getattr(leases, name)

            def charged(*arguments: Any, plain: Any = plain, operations: int = operations) -> Any:
                self.charge(operations)
                return plain(*arguments)

            monkeypatch.setattr(leases, name, charged)
        self.order.__dict__["runs"] = self._ordered


def _run(training: str) -> Any:
    name = f"lora-{training}-e"
    planned = SimpleNamespace(key=name, training_key=training, label="lora", name=name)
    return SimpleNamespace(run=name, planned=planned)


class Line(Silent):
    """Progress that nobody sees."""

    def finish(self) -> None: ...
    def fail(self) -> None: ...
    def postpone(self) -> None: ...
    def retry(self, why: str) -> None: ...


class Ends:
    """Counts what the command is told."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def start(self, run: PendingRun) -> Line:
        return Line()

    def finish(self, run: PendingRun, line: Line, result: Any) -> None:
        self._cluster.finished.append(run.name)

    def fail(self, run: PendingRun, line: Line, error: Exception) -> bool:
        self._cluster.failed.append(run.name)
        return False


class SimulatedLedger(Ledger):
    """A ledger in memory."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.order.folder)
        self._cluster = cluster
        self._lines: dict[str, bytes] = {}

    def runs(self) -> set[str]:
        self._cluster.charge()
        return set(self._lines)

    def _content(self, run: str) -> bytes:
        self._cluster.charge()
        return self._lines.get(run, b"")

    def _append(self, run: str, line: bytes) -> None:
        self._cluster.charge(2)
        self._lines[run] = self._lines.get(run, b"") + line


class SimulatedStore(Store):
    """A store whose results are in memory; its leases are files."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.root)
        self._cluster = cluster

    def listed(self) -> set[str]:
        # A thousand names a request.
        self._cluster.charge(1 + len(self._cluster.results) // 1000)
        return set(self._cluster.results)

    def writing(self) -> AbstractContextManager[None]:
        return nullcontext()


class SimulatedRunner(Runner):
    """A runner whose runs only take time."""

    def __init__(self, cluster: Cluster) -> None:
        attempt = cluster.order.ledger.attempt
        super().__init__(SimulatedStore(cluster), Silent(), attempt=attempt)
        self._cluster = cluster

    def identify(self, planned: Any) -> Any:
        return SimpleNamespace(run=planned.name, training=planned.training_key)

    def find(self, planned: Any) -> Any:
        return self.stored_result(planned, self.identify(planned))

    def stored_result(self, planned: Any, names: Any) -> Any:
        self._cluster.charge(2)
        return self._cluster.results.get(names.run)

    def compute_share(self, planned: Any, names: Any) -> Any:
        return self._cluster.compute(self.store, names.run, names.training)
