"""Workers as the command sees them; their part is played by a script that computes nothing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from quanta_bench.errors import BenchError
from quanta_bench.runs import worker_pool
from quanta_bench.runs.worker import Setting
from quanta_bench.runs.worker_pool import Ahead, Crew, Event, WorkerError
from quanta_bench.spec import EvaluationSpec, Job, TrainingSpec

PLAYED = """
import json, os, signal, sys, time
from multiprocessing.connection import Connection

signal.signal(signal.SIGINT, signal.SIG_IGN)
link = Connection(int(sys.argv[1]))
setting = json.loads(link.recv_bytes())
say = lambda *words: link.send_bytes(json.dumps(words).encode())
if setting["root"] == "broken":
    sys.exit("no module named torch")
say("ready")
while True:
    try:
        label = json.loads(link.recv_bytes())["label"]
    except EOFError:
        break
    open(os.path.join(setting["root"], "log"), "a").write(f"{os.getpid()} {label}\\n")
    say("training", 1, 2)
    if label.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif label.startswith("crash"):
        sys.exit("the last word")
    elif label == "hang":
        time.sleep(600)
    elif label.startswith("slow"):
        time.sleep(0.5)
    elif label == "talk":
        print("a library warns", flush=True)
    say(*{"bad": ("failed", "it broke"), "fault": ("fault", "KeyError: 1", "where")}.get(
        label, ("done", label)))
"""


def jobs(*labels: str) -> list[Job]:
    return [
        Job(label, TrainingSpec(method="none"), EvaluationSpec(tasks=("a",))) for label in labels
    ]


class Played:
    """A crew of played workers, what they were told to do, and what they said."""

    def __init__(self, root: Path, size: int) -> None:
        self.root = root
        self.said: list[str] = []
        self.crew = Crew(size, Setting(str(root), size, 1, {}), tell=self.said.append)
        self.processes: list[int] = []

    def compute(self, labels: list[str], batches: list[list[int]] | None = None) -> list[Event]:
        with self.crew:
            one_each = [[n] for n in range(len(labels))]
            return list(self.crew.compute(jobs(*labels), batches or one_each))

    def log(self) -> list[tuple[int, str]]:
        lines = (self.root / "log").read_text().splitlines()
        return [(int(line.split()[0]), line.split()[1]) for line in lines]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Played]:
    script = tmp_path / "played.py"
    script.write_text(PLAYED)
    monkeypatch.setattr(worker_pool, "COMMAND", (sys.executable, str(script)))
    return lambda size: Played(tmp_path, size)


def ends(events: list[Event]) -> dict[int, str]:
    return {event.run: event.kind for event in events if event.kind in ("done", "failed")}


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def test_every_run_begins_goes_on_and_ends(play: Callable[[int], Played]) -> None:
    played = play(2)
    events = played.compute(["a", "b", "c"])
    for run, label in enumerate("abc"):
        mine = [(event.kind, event.words) for event in events if event.run == run]
        assert mine == [("begun", ()), ("training", (1, 2)), ("done", (label,))]
    assert [event.run for event in events if event.kind == "begun"] == [0, 1, 2]
    assert all(gone(process) for process, _ in played.log())


def test_a_batch_stays_with_one_worker_in_order(play: Callable[[int], Played]) -> None:
    played = play(2)
    batches = [[1, 2, 4], [0, 3]]
    labels = ["slow1", "a1", "a2", "slow2", "a3"]
    played.compute(labels, batches)
    by_worker: dict[int, list[str]] = {}
    for process, label in played.log():
        by_worker.setdefault(process, []).append(label)
    told = [",".join(done) for done in by_worker.values()]
    for batch in batches:
        together = ",".join(labels[number] for number in batch)
        assert sum(together in done for done in told) == 1


def test_the_batch_of_least_rank_starts_next(play: Callable[[int], Played]) -> None:
    played = play(1)
    rank = {0: 3, 1: 1, 2: 1, 3: 0}
    with played.crew:
        for event in played.crew.compute(
            jobs("a", "b", "c", "d"), [[0], [1], [2], [3]], rank=lambda batch: rank[batch[0]]
        ):
            if event == Event(3, "done", ("d",)):
                rank[0] = 0  # what is known changes on the way
    assert [label for _, label in played.log()] == ["d", "a", "b", "c"]


def test_a_failed_run_costs_nothing_else(play: Callable[[int], Played]) -> None:
    played = play(1)
    events = played.compute(["a", "bad", "c"])
    assert ends(events) == {0: "done", 1: "failed", 2: "done"}
    assert Event(1, "failed", ("it broke",)) in events
    assert len({process for process, _ in played.log()}) == 1


@pytest.mark.parametrize("size", [1, 2])
def test_a_worker_that_is_killed_fails_its_run_alone(
    play: Callable[[int], Played], size: int
) -> None:
    played = play(size)
    events = played.compute(["killed", "slow", "b", "c"], [[0, 2], [1], [3]])
    assert ends(events) == {0: "failed", 1: "done", 2: "done", 3: "done"}
    ((message,),) = [event.words for event in events if event.kind == "failed"]
    assert "killed, as the system does when memory runs out" in message
    assert "--jobs 1" in message
    # One fewer is left where others are there; the last is replaced.
    assert len({process for process, _ in played.log()}) == 2


def test_all_workers_killed_is_no_end(play: Callable[[int], Played]) -> None:
    events = play(2).compute(["killed1", "killed2", "killed3", "d"])
    assert ends(events) == {0: "failed", 1: "failed", 2: "failed", 3: "done"}


def test_a_worker_that_ends_by_itself_says_its_last_word(play: Callable[[int], Played]) -> None:
    events = play(1).compute(["crash", "b"])
    assert ends(events) == {0: "failed", 1: "done"}
    message = "The process that computed it ended with 1: the last word"
    assert Event(0, "failed", (message,)) in events


def test_what_libraries_print_is_passed_on_once(play: Callable[[int], Played]) -> None:
    played = play(2)
    played.compute(["talk", "talk", "talk"])
    assert played.said == ["a library warns"]


def test_workers_that_cannot_start_are_an_error(
    play: Callable[[int], Played], tmp_path: Path
) -> None:
    play(1)
    crew = Crew(2, Setting("broken", 2, 1, {}), tell=lambda _: None)
    with crew, pytest.raises(BenchError, match=r"could not start.*no module named torch"):
        list(crew.compute(jobs("a", "b"), [[0], [1]]))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_workers_started_ahead_are_taken_first_and_the_others_end(
    play: Callable[[int], Played], size: int
) -> None:
    played = play(size)
    with Ahead(2, 1) as ahead:
        early = {worker.process.pid for worker in ahead._workers}
        crew = Crew(size, Setting(str(played.root), size, 1, {}), ahead=ahead, tell=print)
        with crew:
            labels = [f"slow{n}" for n in range(3)]
            events = list(crew.compute(jobs(*labels), [[n] for n in range(3)]))
    assert set(ends(events).values()) == {"done"}
    used = {process for process, _ in played.log()}
    assert len(used) == size
    assert used <= early if size < 3 else early < used
    assert all(gone(process) for process in early)


def test_workers_started_ahead_for_nothing_end(play: Callable[[int], Played]) -> None:
    play(1)
    with Ahead(2, 1) as ahead:
        early = [worker.process.pid for worker in ahead._workers]
        assert not any(gone(process) for process in early)
    assert all(gone(process) for process in early)


def test_a_fault_stops_all(play: Callable[[int], Played]) -> None:
    played = play(2)
    with pytest.raises(WorkerError, match="KeyError: 1") as caught:
        played.compute(["slow", "fault"])
    assert caught.value.__notes__ == ["where"]
    assert all(gone(process) for process, _ in played.log())


def test_leaving_stops_workers_that_compute_and_kills_those_that_do_not_mind(
    play: Callable[[int], Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "STOP_SECONDS", 0.3)
    played = play(2)
    begun = time.monotonic()
    with played.crew:
        for event in played.crew.compute(jobs("hang", "hang"), [[0], [1]]):
            if event.kind == "training" and len(played.log()) == 2:
                break
    assert time.monotonic() - begun < 60
    assert len(played.log()) == 2
    assert all(gone(process) for process, _ in played.log())
