"""The worker pool, with real processes whose runs compute nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quanta_bench.errors import BenchError, RunInProgressError
from quanta_bench.runs import claims, worker_pool
from quanta_bench.runs.claims import Claims
from quanta_bench.runs.worker import TrainingStep, WorkerSettings
from quanta_bench.runs.worker_pool import (
    Event,
    PoolWaits,
    RunFailed,
    RunFinished,
    RunPostponed,
    RunProgressed,
    RunStarted,
    WorkerPool,
)
from quanta_bench.spec import EvaluationSpec, Job, TrainingSpec
from quanta_bench.utils import processes

PLAYED = """
import os, signal, sys, time
from quanta_bench.errors import BenchError, RunInProgressError
from quanta_bench.runs.worker import TrainingStep

def no_imports(): pass
def broken_imports(): raise ModuleNotFoundError("no module named torch")

held = set()

def play(settings, job, fresh, halvings=0, *, tell):
    label = job.label
    with open(settings.root / "log", "a") as log:
        log.write(f"{os.getpid()} {label}\\n")
    tell(TrainingStep(1, 2))
    if label.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif label.startswith("crash"):
        print("the last word", file=sys.stderr, flush=True)
        os._exit(1)
    elif label == "hang":
        while True:
            try:
                time.sleep(600)
            except KeyboardInterrupt:
                pass
    elif label.startswith("slow"):
        time.sleep(0.5)
    elif label == "talk":
        print("a library warns", flush=True)
    elif label == "bad":
        raise BenchError("it broke")
    elif label == "fault":
        raise KeyError(1)
    elif label.startswith("held") and label not in held:
        held.add(label)
        raise RunInProgressError("held")
    return label
""".replace("\\\\", "\\")


def jobs(*labels: str) -> list[Job]:
    return [
        Job(label, TrainingSpec(method="none"), EvaluationSpec(tasks=("a",))) for label in labels
    ]


class Played:
    """A pool of workers that only play, their log, and what is shown of them."""

    def __init__(self, root: Path, size: int) -> None:
        self.root = root
        self.shown: list[str] = []
        self.pool = WorkerPool()
        self.settings = WorkerSettings(root, size, 1)

    def events(
        self, labels: list[str], batches: list[list[int]] | None = None, **options: Any
    ) -> Iterator[Event]:
        claims = Claims(batches or [[n] for n in range(len(labels))], **options)
        return self.pool.compute(jobs(*labels), claims, self.settings, show=self.shown.append)

    def compute(self, labels: list[str], batches: list[list[int]] | None = None) -> list[Event]:
        with self.pool:
            return list(self.events(labels, batches))

    def log(self) -> list[tuple[int, str]]:
        lines = (self.root / "log").read_text().splitlines()
        return [(int(line.split()[0]), line.split()[1]) for line in lines]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Played]:
    (tmp_path / "played_worker.py").write_text(PLAYED)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "played_worker", raising=False)
    import played_worker  # type: ignore[import-not-found]

    monkeypatch.setattr(worker_pool, "compute_run", played_worker.play)
    monkeypatch.setattr(worker_pool, "import_libraries", played_worker.no_imports)
    return lambda size: Played(tmp_path, size)


def ends(events: list[Event]) -> dict[int, str]:
    names = {RunFinished: "done", RunFailed: "failed"}
    return {
        event.run: names[type(event)]
        for event in events
        if isinstance(event, RunFinished | RunFailed)
    }


def errors(events: list[Event]) -> list[str]:
    return [str(event.error) for event in events if isinstance(event, RunFailed)]


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def test_every_run_starts_goes_on_and_ends(play: Callable[[int], Played]) -> None:
    played = play(2)
    events = played.compute(["a", "b", "c"])
    for run, label in enumerate("abc"):
        assert [event for event in events if getattr(event, "run", -1) == run] == [
            RunStarted(run),
            RunProgressed(run, TrainingStep(1, 2)),
            RunFinished(run, label),
        ]
    assert [event.run for event in events if isinstance(event, RunStarted)] == [0, 1, 2]
    assert all(gone(process) for process, _ in played.log())


def test_a_batch_stays_with_one_worker_in_order(play: Callable[[int], Played]) -> None:
    played = play(2)
    batches = [[1, 2, 4], [0, 3]]
    labels = ["slow1", "a1", "a2", "slow2", "a3"]
    played.compute(labels, batches)
    by_worker: dict[int, list[str]] = {}
    for process, label in played.log():
        by_worker.setdefault(process, []).append(label)
    sequences = [",".join(done) for done in by_worker.values()]
    for batch in batches:
        together = ",".join(labels[number] for number in batch)
        assert sum(together in sequence for sequence in sequences) == 1


def test_the_batch_of_least_rank_starts_next(play: Callable[[int], Played]) -> None:
    played = play(1)
    rank = {0: 3, 1: 1, 2: 1, 3: 0}
    with played.pool:
        for event in played.events(["a", "b", "c", "d"], rank=lambda batch: rank[batch[0]]):
            if event == RunFinished(3, "d"):
                rank[0] = 0  # what is known changes on the way
    assert [label for _, label in played.log()] == ["d", "a", "b", "c"]


def test_a_failed_run_costs_nothing_else(play: Callable[[int], Played]) -> None:
    played = play(1)
    events = played.compute(["a", "bad", "fault", "c"])
    assert ends(events) == {0: "done", 1: "failed", 2: "failed", 3: "done"}
    kinds = [type(event.error) for event in events if isinstance(event, RunFailed)]
    assert kinds == [BenchError, KeyError]
    assert len({process for process, _ in played.log()}) == 1


def test_a_run_of_another_process_comes_last_with_its_batch(
    play: Callable[[int], Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.1)
    played = play(1)
    events = played.compute(["held1", "a", "b", "c"], [[0, 1], [2], [3]])
    assert RunPostponed(0) in events
    assert PoolWaits() in events
    started = [event for event in events if isinstance(event, RunStarted)]
    assert started == [
        RunStarted(0),
        RunStarted(2),
        RunStarted(3),
        RunStarted(0),
        RunStarted(1),
    ]
    assert set(ends(events).values()) == {"done"}
    assert not any(isinstance(getattr(e, "error", None), RunInProgressError) for e in events)


@pytest.mark.parametrize("size", [1, 2])
def test_a_worker_that_is_killed_fails_its_run_alone(
    play: Callable[[int], Played], size: int
) -> None:
    played = play(size)
    events = played.compute(["killed", "slow", "b", "c"], [[0, 2], [1], [3]])
    assert ends(events) == {0: "failed", 1: "done", 2: "done", 3: "done"}
    (message,) = errors(events)
    assert "killed, as the system does when memory runs out" in message
    assert "--jobs 1" in message
    # One fewer is left where there are others; the last is replaced.
    assert len({process for process, _ in played.log()}) == 2


def test_a_worker_takes_the_gpu_of_the_one_that_it_replaces(
    play: Callable[[int], Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    start = worker_pool._Worker.start

    def noted(number: int, threads: int, gpus: int) -> worker_pool._Worker:
        started.append(number)
        return start(number, threads, gpus)

    monkeypatch.setattr(worker_pool._Worker, "start", noted)
    play(2).compute(["slow1", "crash", "slow2", "b", "c"])
    # Either of the two may have taken the run that ends its process.
    assert len(started) == 3
    assert set(started) == {0, 1}


def test_all_workers_killed_is_no_end(play: Callable[[int], Played]) -> None:
    events = play(2).compute(["killed1", "killed2", "killed3", "d"])
    assert ends(events) == {0: "failed", 1: "failed", 2: "failed", 3: "done"}


def test_a_worker_that_ends_by_itself_is_quoted(play: Callable[[int], Played]) -> None:
    events = play(1).compute(["crash", "b"])
    assert ends(events) == {0: "failed", 1: "done"}
    assert errors(events) == [
        "The process that computed it ended with exit status 1: the last word"
    ]


def test_what_libraries_print_is_shown_once(play: Callable[[int], Played]) -> None:
    played = play(2)
    played.compute(["talk", "talk", "talk"])
    assert played.shown == ["a library warns"]


def test_workers_that_cannot_start_are_an_error(
    play: Callable[[int], Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    played = play(2)
    import played_worker

    monkeypatch.setattr(worker_pool, "import_libraries", played_worker.broken_imports)
    with pytest.raises(BenchError, match=r"could not start: no module named torch"):
        played.compute(["a", "b"])
    monkeypatch.setattr(worker_pool, "import_libraries", os.abort)
    with pytest.raises(BenchError, match=r"could not start; it ended by SIGABRT"):
        play(2).compute(["a", "b"])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_workers_started_early_are_used_first_and_the_others_end(
    play: Callable[[int], Played], size: int
) -> None:
    played = play(size)
    played.pool.start(2, 1)
    early = {worker.process.pid for worker in played.pool._idle}
    events = played.compute([f"slow{n}" for n in range(3)])
    assert set(ends(events).values()) == {"done"}
    used = {process for process, _ in played.log()}
    assert len(used) == size
    assert used <= early if size < 3 else early < used
    assert all(gone(process) for process in early)


def test_workers_started_early_for_nothing_end(play: Callable[[int], Played]) -> None:
    with play(2).pool as pool:
        pool.start(2, 1)
        early = [worker.process.pid for worker in pool._idle]
        assert not any(gone(process) for process in early)
    assert all(gone(process) for process in early)


def test_leaving_ends_workers_that_compute_and_kills_those_that_go_on(
    play: Callable[[int], Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes.close_all, "__defaults__", (0.3,))
    played = play(2)
    with played.pool:
        for event in played.events(["hang", "hang"]):
            if isinstance(event, RunProgressed) and len(played.log()) == 2:
                break
    assert len(played.log()) == 2
    assert all(gone(process) for process, _ in played.log())
