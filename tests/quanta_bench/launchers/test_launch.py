"""An order that workers compute, here in the command's own process: what becomes of its runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from swept import Swept

from quanta_bench.errors import (
    BenchError,
    OutOfMemoryError,
    RunCrashedError,
    StorageError,
    UsageError,
)
from quanta_bench.launchers import watch, worker
from quanta_bench.launchers.launch import FRUITLESS, Launch, Patience
from quanta_bench.launchers.order import Order, _is_done, remove_finished
from quanta_bench.launchers.watch import wanted
from quanta_bench.launchers.worker import Claimant, in_turn, work
from quanta_bench.results.leases import Owner
from quanta_bench.results.store import Store
from quanta_bench.runs import claims
from quanta_bench.runs.identity import PlannedRow
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.schedule import PendingRun
from quanta_bench.suites.grid import GridRow

Rows = Callable[..., list[GridRow]]


class Here:
    """A launcher whose workers are calls in this process, one for each free batch."""

    dtype = None
    threads = 0

    def __init__(self) -> None:
        self.order: Order | None = None
        self.patience = Patience()
        self.starts = 0
        self.stopped = False

    def connect(self) -> None: ...
    def close(self) -> None: ...

    def launch(self, order: Order, runs: Sequence[PendingRun]) -> Here:
        self.order = order
        return self

    def supply(self, free: Sequence[int], left: int, progress: int) -> None:
        for number in free:
            self.starts += 1
            self.patience.started(progress)
            try:
                work(self.order.folder, batch=number)  # type: ignore[union-attr]
            except BenchError as error:
                self.patience.problem = str(error)

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for, and the working directory stays as it is."""
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(watch, "POLL_EACH", 0.0)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.0)
    monkeypatch.chdir(Path.cwd())


def swept(rows: list[GridRow], folder: Path, **options: Any) -> tuple[Swept, Here]:
    here = Here()
    return Swept(rows, folder, elsewhere=Launch(here), **options), here


def test_workers_compute_what_the_command_would_to_the_last_digit(
    make_rows: Rows, tmp_path: Path
) -> None:
    rows = make_rows()
    ours, here = swept(rows, tmp_path / "launched")
    assert ours.complete
    assert ours.failed == []
    assert here.stopped
    expected = Swept(rows, tmp_path / "local").numbers
    assert ours.numbers == {run: pytest.approx(values) for run, values in expected.items()}
    assert not list((tmp_path / "launched" / "launches").iterdir())
    # What is finished is not launched again.
    again, here = swept(rows, tmp_path / "launched")
    assert again.complete
    assert here.starts == 0


def test_only_stored_results_that_are_to_be_computed_again_are(
    make_rows: Rows, tmp_path: Path
) -> None:
    rows = make_rows(seeds=1)
    first, _ = swept(rows, tmp_path)
    stamps = {path: path.stat().st_ino for path in tmp_path.glob("runs/*/result.json")}
    again, here = swept(rows, tmp_path, fresh="all")
    assert again.complete
    assert here.starts == 2
    assert again.numbers == first.numbers
    renewed = {path for path, number in stamps.items() if path.stat().st_ino != number}
    assert renewed == stamps.keys()


def test_a_failure_is_tried_once_more_whoever_does_it_and_then_costs_its_own_cells(
    make_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Runner.compute_share
    tried: list[str] = []

    def fail(self: Runner, planned: Any, names: Any) -> Any:
        if planned.method.trains:
            tried.append(names.run)
            raise RuntimeError("it broke")
        return plain(self, planned, names)

    monkeypatch.setattr(Runner, "compute_share", fail)
    ours, here = swept(make_rows(seeds=1), tmp_path)
    assert len(tried) == 2
    assert len(ours.failed) == 1
    assert "it broke" in ours.failed[0]
    assert "tried once more" in ours.shown
    assert ours.cells[0].complete == [0]
    assert [failure.kind for failure in Store(tmp_path).failures.of(tried[0])] == [
        RunCrashedError.__name__
    ] * 2
    # Its history stays for who wants to see what happened.
    assert here.order is not None
    assert here.order.folder.is_dir()


def test_memory_that_ran_out_on_one_worker_halves_the_micro_batches_of_the_next(
    make_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a cluster ends a worker, and the launcher writes the failure down."""
    halvings: list[int] = []
    compute = Runner.compute

    def note(self: Runner, planned: Any, **options: Any) -> Any:
        halvings.append(options["halvings"])
        return compute(self, planned, **options)

    monkeypatch.setattr(Runner, "compute", note)

    class Small(Here):
        def supply(self, free: Sequence[int], left: int, progress: int) -> None:
            if not self.starts:
                order = self.order
                assert order is not None
                (number,) = (n for n, run in enumerate(order.runs) if run.label != "none")
                order.ledger.fail(order.runs[number].run, OutOfMemoryError("node full"))
            super().supply(free, left, progress)

    rows = make_rows(seeds=1)[1:]
    ours = Swept(rows, tmp_path, elsewhere=Launch(Small()))
    assert ours.complete
    assert halvings == [1]


def test_a_lost_worker_is_replaced(
    make_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker vanishes within its first run: it leaves an attempt that never ends."""
    lost = False

    class Fragile(Here):
        def supply(self, free: Sequence[int], left: int, progress: int) -> None:
            nonlocal lost
            if not lost:
                lost = True
                order = self.order
                assert order is not None
                order.ledger._add(order.runs[0].run, "began")
                return
            super().supply(free, left, progress)

    ours = Swept(make_rows(seeds=1), tmp_path, elsewhere=Launch(Fragile()))
    assert ours.complete
    assert "was lost" in ours.shown


@pytest.mark.parametrize("error", [StorageError("disk full"), UsageError("refused")])
def test_what_no_run_can_survive_stops_all(
    make_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BenchError
) -> None:
    tried = 0

    def refuse(*_: Any) -> None:
        nonlocal tried
        tried += 1
        raise error

    monkeypatch.setattr(Runner, "compute_share", refuse)
    with pytest.raises(type(error), match=str(error)):
        swept(make_rows(), tmp_path)
    assert tried == 1


def test_workers_that_compute_nothing_end_the_command_with_what_they_said(
    make_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> None:
        raise UsageError("there is no method 'mine'")

    monkeypatch.setattr(worker.Order, "read", missing)
    with pytest.raises(BenchError, match=rf"{FRUITLESS} times .* there is no method 'mine'"):
        swept(make_rows(seeds=1), tmp_path)


def test_progress_gives_new_patience() -> None:
    patience = Patience()
    for progress in range(20):
        patience.started(progress)
    for _ in range(FRUITLESS - 1):
        patience.started(19)
    with pytest.raises(BenchError, match="computed nothing"):
        patience.started(19)


def test_a_worker_leaves_runs_to_owners_that_live_and_waits_for_signs_of_others(
    make_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner is on another machine, so that only a heartbeat tells that it lives."""
    rows = make_rows(seeds=1)[1:]
    ((_, planned),) = PlannedRow.of(rows[0]).runs
    training = Runner(Store(tmp_path), Silent()).identify(planned).training
    lease = tmp_path / "leases" / f"{training}.json"
    lease.parent.mkdir()
    owner = Owner(token="t", host="elsewhere", machine="another", process=1)
    waits: list[bool] = []
    plain = Claimant.wait

    def wait(self: Claimant, runs: Any) -> bool:
        waits.append(plain(self, runs))
        if len(waits) == 3:
            os.utime(lease)
        return waits[-1]

    class Held(Here):
        def supply(self, free: Sequence[int], left: int, progress: int) -> None:
            assert self.order is not None
            lease.write_text(owner.model_dump_json())
            work(self.order.folder)
            raise KeyboardInterrupt

    monkeypatch.setattr(Claimant, "wait", wait)
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(claims, "POLL_EACH", 0.0)
    with pytest.raises(KeyboardInterrupt):
        Swept(rows, tmp_path, elsewhere=Launch(Held()))
    assert waits == [True, True, True, False]
    assert lease.exists()


def test_each_worker_begins_with_batches_of_its_own() -> None:
    batches = [[n] for n in range(7)]
    turns = [in_turn(batches, number, 3) for number in range(3)]
    assert [turn[0] for turn in turns] == [[0], [1], [2]]
    assert turns[1] == [[1], [4], [0], [2], [3], [5], [6]]
    assert all(sorted(turn) == batches for turn in turns)


def test_an_order_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="under the same path"):
        Order.read(tmp_path / "gone")


def test_the_folders_of_old_finished_launches_go(make_rows: Rows, tmp_path: Path) -> None:
    class Interrupted(Here):
        def supply(self, free: Sequence[int], left: int, progress: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Swept(make_rows(seeds=1), tmp_path, elsewhere=Launch(Interrupted()))
    (order,) = tmp_path.glob("launches/*/order.json")
    os.utime(order, (0, 0))
    remove_finished(tmp_path)
    assert order.exists()
    swept(make_rows(seeds=1), tmp_path)
    remove_finished(tmp_path)
    assert not order.parent.exists()


def test_a_launch_that_computes_again_is_not_finished_by_what_was_there(
    make_rows: Rows, tmp_path: Path
) -> None:
    """Its workers may wait in a queue for days, before a launch that ends sooner."""
    swept(make_rows(seeds=1), tmp_path)
    stored, *_ = Store(tmp_path).results()
    order = Order(
        folder=tmp_path / "launches" / "waiting",
        directory=tmp_path,
        runs=[],
        batches=[],
        outdated={stored.run: stored.checksum},
        dtype="float32",
    )
    assert not _is_done(tmp_path / "runs" / stored.run, order)
    again = order.model_copy(update={"outdated": {stored.run: "of an earlier one"}})
    assert _is_done(tmp_path / "runs" / stored.run, again)


@pytest.mark.parametrize(
    ("free", "left", "live", "more"),
    [(10, 10, 0, 4), (10, 10, 4, 0), (1, 5, 3, 1), (0, 3, 2, 0), (1, 3, 3, 0), (1, 1, 2, 0)],
)
def test_as_many_workers_as_there_is_work_for(free: int, left: int, live: int, more: int) -> None:
    assert wanted(free, left, live, most=4) == more
