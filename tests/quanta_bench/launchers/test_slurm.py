"""Workers by submitit: on a SLURM that only plays, its local executor, and a real SLURM."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import SlurmCluster, why_not
from swept import Swept

from quanta_bench.errors import BenchError
from quanta_bench.launchers import slurm
from quanta_bench.launchers.launch import Detached, Launch
from quanta_bench.launchers.ledger import Ledger
from quanta_bench.launchers.order import Order
from quanta_bench.launchers.slurm import SlurmLauncher, SlurmSettings, SlurmWorker, SlurmWorkers
from quanta_bench.suites.grid import GridRow

pytest.importorskip("submitit", reason="submitit is not installed")

Rows = Callable[..., list[GridRow]]

PLAYED = """#!/bin/sh
cat "$1" > {folder}/script
echo "Submitted batch job 7"
"""


def launcher(workers: int = 2, **settings: Any) -> SlurmLauncher:
    return SlurmLauncher(SlurmSettings(**settings), workers, lambda text: None)


# --- a SLURM that only plays ------------------------------------------------------------------


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the commands of a SLURM that takes every job and runs none."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "srun", "squeue", "scancel"):
        (folder / name).write_text(
            PLAYED.format(folder=folder) if name == "sbatch" else "#!/bin/sh"
        )
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.fixture
def order(tmp_path: Path) -> Order:
    """An order of five batches, whose runs nobody reads."""
    folder = tmp_path / "launches" / "one"
    batches = [[n] for n in range(5)]
    return Order(
        folder=folder, directory=tmp_path, runs=[], batches=batches, outdated={}, dtype="float32"
    )


def test_workers_are_an_array_with_what_the_user_and_the_model_need(
    played: Path, order: Order
) -> None:
    settings = SlurmSettings(partition="gpu", gpus=1, cpus=4, minutes=90, sbatch={"nice": 5})
    said: list[str] = []
    workers = SlurmWorkers(order, settings, 2.5 * 2**30, 3, said.append)
    workers.supply(range(5), 5, 0)
    script = (played / "script").read_text()
    for line in (
        "--array=0-2%3",
        "--partition=gpu",
        "--gpus-per-node=1",
        "--cpus-per-task=4",
        "--mem=3GB",
        "--time=90",
        "--nice=5",
        "--requeue",
        "--signal=USR2@90",
    ):
        assert f"#SBATCH {line}\n" in script
    assert "srun" in script
    assert said == ["3 workers on SLURM, 7."]


def test_what_is_in_the_queue_is_not_submitted_again(
    played: Path, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three workers one ends; it is replaced while there is work for it."""
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", -1.0)
    queue: str | None = "7 PENDING\n7 PENDING\n7 RUNNING\n8 RUNNING\n"
    monkeypatch.setattr(slurm, "_run", lambda *words: queue)
    said: list[str] = []
    workers = SlurmWorkers(order, SlurmSettings(), None, 3, said.append)
    workers.supply(range(5), 5, 0)
    workers.supply(range(2), 5, 1)
    queue = None  # SLURM does not answer
    workers.supply(range(2), 5, 1)
    assert len(said) == 1
    queue = "7 RUNNING\n7 RUNNING\n7 COMPLETING\n"
    workers.supply([], 5, 2)
    workers.supply(range(2), 2, 2)
    assert len(said) == 1
    workers.supply(range(2), 5, 2)
    assert said[1:] == ["4 workers on SLURM, 7."]


def test_workers_submitted_just_now_count_where_slurm_does_not_answer(
    played: Path, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", -1.0)
    monkeypatch.setattr(slurm, "_run", lambda *words: None)
    said: list[str] = []
    workers = SlurmWorkers(order, SlurmSettings(), None, 3, said.append)
    workers.supply(range(5), 5, 0)
    workers.supply(range(5), 5, 0)
    assert said == ["3 workers on SLURM, 7."]


def test_a_refusal_of_slurm_is_one_message(played: Path, order: Order) -> None:
    (played / "sbatch").write_text("#!/bin/sh\necho 'sbatch: invalid partition: gpu' >&2; exit 1\n")
    workers = SlurmWorkers(order, SlurmSettings(), None, 3, lambda text: None)
    with pytest.raises(BenchError, match=r"SLURM refused the workers: .*invalid partition"):
        workers.supply(range(5), 5, 0)


def test_without_slurm_the_message_says_where_to_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchError, match="There is no sbatch here"):
        launcher().connect()
    launcher(executor="local").connect()


def test_the_command_need_not_wait(played: Path, make_rows: Rows, tmp_path: Path) -> None:
    launch = Launch(launcher(), wait=False)
    with pytest.raises(Detached, match="2 runs are left to them"):
        Swept(make_rows(seeds=1), tmp_path / "results", elsewhere=launch)
    assert "--array=0-1%2" in (played / "script").read_text()
    assert list(tmp_path.glob("results/launches/*/order.json"))


# --- signals ----------------------------------------------------------------------------------


@pytest.fixture
def handlers() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_worker_whose_time_is_over_ends_in_order_and_is_queued_again(
    handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[str] = []

    def queue_again(*_: object) -> None:
        ends.append("queued")
        raise SystemExit(-1)

    def work(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(5)
        finally:
            ends.append("lease given back")

    signal.signal(signal.SIGUSR2, queue_again)
    monkeypatch.setattr(slurm, "work", work)
    with pytest.raises(SystemExit):
        SlurmWorker()(Path(), 0, 1)
    assert ends == ["queued", "lease given back"]
    again = SlurmWorker().checkpoint(Path("x"), 1, 2)
    assert isinstance(again.function, SlurmWorker)
    assert again.args == (Path("x"), 1, 2)


def test_a_worker_that_is_told_to_end_waits_for_its_end(
    handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[str] = []

    def work(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            ends.append("lease given back")
            os.kill(os.getpid(), signal.SIGTERM)  # the second one changes nothing

    monkeypatch.setattr(slurm, "work", work)
    waits: list[float] = []
    sleep = time.sleep
    monkeypatch.setattr(slurm.time, "sleep", lambda s: (waits.append(s), sleep(min(s, 5)))[1])
    monkeypatch.setattr(slurm, "END_SECONDS", 0.25)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    SlurmWorker()(Path(), 0, 1)
    assert ends == ["lease given back"]
    assert waits[-1] == 0.25
    monkeypatch.delenv("SLURM_JOB_ID")
    SlurmWorker()(Path(), 0, 1)
    assert waits.count(0.25) == 1


# --- real workers -----------------------------------------------------------------------------


# Two processes that import the libraries take 15 s of CPU.
def test_workers_of_the_local_executor_make_the_whole_table(
    make_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows()
    with warnings.catch_warnings():
        # submitit leaves its controllers to themselves.
        warnings.simplefilter("ignore", ResourceWarning)
        swept = Swept(rows, tmp_path / "launched", elsewhere=Launch(launcher(executor="local")))
    assert swept.complete
    assert swept.failed == []
    expected = Swept(rows, tmp_path / "local").numbers
    assert swept.numbers == {run: pytest.approx(values) for run, values in expected.items()}


class Requeuer(threading.Thread):
    """Lets SLURM queue the first job again that computes something."""

    def __init__(self, cluster: SlurmCluster, root: Path) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.root = root
        self.queued = ""

    def run(self) -> None:
        while not self.queued:
            time.sleep(0.02)
            if not list(self.root.glob("leases/*.json")):
                continue
            rows = self.cluster.run("squeue", "-h", "-r", "-t", "R", "-o", "%A").split()
            for job in rows:
                self.cluster.run("scontrol", "requeue", job)
                self.queued = job
                break


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    # The path of a socket has to be short.
    with (
        tempfile.TemporaryDirectory(prefix="slurm", ignore_cleanup_errors=True) as folder,
        SlurmCluster(Path(folder)) as started,
    ):
        for name, value in started.variables.items():
            monkeypatch.setenv(name, value)
        yield started


@pytest.mark.slow
def test_a_job_that_slurm_queues_again_is_caught_by_one_owner(
    cluster: SlurmCluster, make_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, one of them queued again while both compute: all of the table, nothing twice."""
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 2.0)
    monkeypatch.setattr(Order, "remove", lambda self: None)
    rows = make_rows(seeds=4, epochs=20, validations=4)
    root = tmp_path / "launched"
    requeuer = Requeuer(cluster, root)
    requeuer.start()
    swept = Swept(rows, root, elsewhere=Launch(launcher(memory=1.0)))
    assert requeuer.queued
    assert swept.complete
    assert swept.failed == []
    assert not list(root.glob("leases/*"))
    (order,) = root.glob("launches/*")
    ledger = Ledger(order / "runs")
    histories = [ledger.history(run) for run in ledger.runs()]
    assert len(histories) == 5
    # An attempt begins when none is going on, and none follows one that was not cut short.
    assert all(history.lost == history.open == 0 for history in histories)
    assert 5 <= sum(len(history.attempts) for history in histories) <= 6
    # Rank variables of SLURM change nothing.
    expected = Swept(rows, tmp_path / "local").numbers
    assert swept.numbers == {run: pytest.approx(values) for run, values in expected.items()}
    end = time.monotonic() + 60
    while cluster.run("squeue", "-h").strip():
        assert time.monotonic() < end, "jobs are left in the queue"
        time.sleep(0.5)
