"""Runs computed several at once: the same results, the order, and Ctrl-C; on a tiny model."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from animals import write_data, write_suite
from command_line import start
from rich.console import Console

from quanta_bench.data.pools import Pools
from quanta_bench.results.store import Store
from quanta_bench.runs import schedule as schedules
from quanta_bench.runs import sweep as sweeps
from quanta_bench.runs.concurrency import Resources
from quanta_bench.runs.estimates import DurationEstimator, peak_memory, work
from quanta_bench.runs.identity import PlannedRow, PlannedRun
from quanta_bench.runs.schedule import PendingRun, Schedule
from quanta_bench.runs.sweep import sweep
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.request import make_request


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A base and a method, two seeds."""
    folder = tmp_path_factory.mktemp("jobs")
    return write_suite(folder, write_data(folder), tiny_model)


def stored(results: Path) -> dict[str, Any]:
    return {
        path.parent.name: json.loads(path.read_text())
        for path in results.glob("runs/*/result.json")
    }


def workers(process: subprocess.Popen[str]) -> list[int]:
    """Processes of the command's group other than itself."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            after = path.read_text().rpartition(")")[2].split()
            if int(after[2]) == process.pid and int(path.parent.name) != process.pid:
                found.append(int(path.parent.name))
    return found


def wait(ready: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """Wait while a process runs; the test's own timeout ends a wait for nothing."""
    while not (found := ready()):
        if process.poll() is not None:
            raise AssertionError(f"it ended: {process.communicate()}")
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def both(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The table's runs computed one after another, and two at once: cells, screen and folder."""
    request = make_request(str(suite), "table", "embedded", Choice(), check=True)
    found = []
    for jobs in (1, 2):
        folder = tmp_path_factory.mktemp(f"results{jobs}")
        console = Console(file=io.StringIO(), width=120)
        cells, failed = sweep(request.grid, Store(folder), console, lambda _: "", at_once=jobs)
        assert failed == []
        found.append((cells, console.file.getvalue(), folder))  # type: ignore[attr-defined]
    return found[0], found[1]


def test_two_at_once_give_what_one_after_another_gives(both: tuple[Any, Any]) -> None:
    (cells_1, *_, folder_1), (cells_2, *_, folder_2) = both
    for one, two in zip(cells_1, cells_2, strict=True):
        assert two.complete == one.complete == list(one.row.seeds)
        for seed, results in one.results.items():
            assert [r.run for r in two.results[seed]] == [r.run for r in results]
    runs_1, runs_2 = stored(folder_1), stored(folder_2)
    assert set(runs_1) == set(runs_2)
    assert len(runs_1) == 3
    for name, one in runs_1.items():
        for task, scores in one["tasks"].items():
            assert runs_2[name]["tasks"][task]["metrics"] == scores["metrics"]
        assert runs_2[name]["training"]["losses"] == one["training"]["losses"]


def test_how_runs_were_computed_is_said_and_recorded(both: tuple[Any, Any]) -> None:
    (_, said_1, folder_1), (_, said_2, folder_2) = both
    for run in stored(folder_1).values():
        assert run["training"]["environment"]["jobs"] == 1
    for run in stored(folder_2).values():
        for found in (run["training"]["environment"], run["evaluation_environment"]):
            assert found["jobs"] == 2
            assert found["threads"] >= 1
    # A worker measures its first run alone; the peaks of later ones are unknown.
    peaks = [run["training"]["peak_memory_bytes"] for run in stored(folder_2).values()]
    measured = [peak for peak in peaks if peak is not None]
    assert measured
    assert min(measured) > 10e6
    assert "Computing 2 runs at a time" in said_2
    assert "at a time" not in said_1
    ends = [line for line in said_2.splitlines() if ": done; " in line]
    assert [line.split("; ")[1] for line in ends] == [f"{n} of 3 runs" for n in (1, 2, 3)]
    assert not list(folder_2.glob("unfinished/*"))
    assert not list(folder_2.glob("*/.*"))


class Started:
    """A pool that only counts the workers that it is to start."""

    def __init__(self) -> None:
        self.count = 0

    def start(self, count: int, threads: int) -> None:
        self.count = count


def test_workers_start_early_only_where_nothing_is_finished(
    suite: Path, both: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = make_request(str(suite), "table", "embedded", Choice(), check=True).grid
    rows = [PlannedRow.of(row) for row in grid]

    def started(folder: Path, fresh: bool, at_once: int) -> int:
        pool = Started()
        sweeps._start_early(pool, rows, Store(folder), fresh, at_once)  # type: ignore[arg-type]
        return pool.count

    *_, folder = both[1]
    assert started(tmp_path, False, 2) == 2
    assert started(tmp_path, False, 1) == 0
    assert started(folder, False, 2) == 0
    assert started(folder, True, 2) == 2
    gpu = Resources(4, 1, 1e12)
    monkeypatch.setattr(schedules, "available_resources", lambda: gpu)
    assert started(tmp_path, False, 2) == 0


def test_each_job_of_a_table_is_planned_once(
    suite: Path, both: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = PlannedRun.of
    planned: list[Any] = []

    def counted(job: Any, **options: Any) -> PlannedRun:
        planned.append(job)
        return plan(job, **options)

    monkeypatch.setattr(PlannedRun, "of", counted)
    request = make_request(str(suite), "table", "embedded", Choice(), check=True)
    *_, folder = both[0]
    planned.clear()
    sweep(request.grid, Store(folder), Console(file=io.StringIO()), lambda _: "")
    assert len(planned) == sum(len(row.jobs) for row in request.grid)


def test_durations_are_estimated_from_what_was_measured(both: Any) -> None:
    estimator, results = DurationEstimator(), list(Store(both[0][2]).results())
    assert estimator.seconds("lora", 20.0) > estimator.seconds("quanta", 10.0)
    took = [one.training.seconds + one.evaluation_seconds for one in results[:2]]
    estimator.observe("quanta", took[0] / 4, results[0])  # 4 seconds an item
    estimator.observe("lora", took[1] / 2, results[1])
    assert estimator.seconds("quanta", 10.0) == pytest.approx(40)
    assert estimator.seconds("lora", 10.0) == pytest.approx(20)
    assert estimator.seconds("another", 10.0) == pytest.approx(30)


def planned(name: str, evaluation: EvaluationSpec | None = None, **training: Any) -> PlannedRun:
    tasks = ("boolq",)
    evaluation = evaluation or EvaluationSpec(tasks=tasks)
    return PlannedRun.of(Job(name, TrainingSpec(**{"tasks": tasks, **training}), evaluation))


def pending(name: str, seed: int, work: float, **training: Any) -> PendingRun:
    return PendingRun(name, seed, planned(name, **training), work=work)


def test_runs_start_seed_by_seed_the_longest_first_and_share_a_training() -> None:
    runs = [
        pending("base", 0, 3, method="none"),
        pending("base, other", 0, 1, method="none"),
        pending("lora", 0, 5, method="lora"),
        pending("full", 0, 9, method="full"),
        pending("lora, other", 0, 1, method="lora"),
        pending("lora 1", 1, 5, method="lora", seeds={"init": 1}),
        pending("full 1", 1, 9, method="full", seeds={"init": 1}),
    ]
    schedule = Schedule.of(runs, 3)
    assert schedule.batches == [[3], [2, 4], [0, 1], [6], [5]]
    assert schedule.jobs == 3
    assert Schedule.of(runs[:2], 3).jobs == 1  # they share a training


@pytest.mark.parametrize("free", [1e9, 1e12])
def test_auto_goes_by_memory_and_cores(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(schedules, "available_resources", lambda: Resources(4, 0, free))
    runs = [pending(f"lora {n}", n, 5, method="lora", seeds={"init": n}) for n in range(9)]
    assert Schedule.of(runs, None).jobs == (4 if free > 1e10 else 1)


def test_memory_grows_with_what_trains(tiny_model: Path) -> None:
    lora, full = (peak_memory(planned("a", method=name)) for name in ("lora", "full"))
    assert lora is not None
    assert full is not None
    # Measured: 2.5 to 7.4 GB, and 4.2 to 8 GB.
    assert 2e9 < lora < full < 9e9
    local = ModelSpec(name=".", source=f"local:{tiny_model}")
    tiny = peak_memory(planned("a", method="lora", model=local))
    assert tiny is not None
    assert tiny < lora
    unknown = ModelSpec(name="somebody/unknown", source="hub")
    assert peak_memory(planned("a", method="lora", model=unknown)) is None


def test_work_counts_the_items_of_a_source(llm_adapters: Path) -> None:
    source = f"local:{llm_adapters}"
    data = {"tasks": ("boolq", "piqa"), "source": source}
    scored = EvaluationSpec(items=5, **data)
    trained = {"train_items": 8, "validation_items": 1, "validations": 2, "epochs": 3, **data}
    pools = Pools()
    base = work(planned("a", scored, method="none"), pools)
    lora = work(planned("a", scored, method="lora", **trained), pools)
    full = work(planned("a", scored, method="full", **trained), pools)
    assert base == 10  # of 12 a task
    assert lora == 10 + 3 * 3 * 16 + 2 * 2
    assert full > lora


def test_ctrl_c_stops_all_and_the_same_command_goes_on(suite: Path, tmp_path: Path) -> None:
    """As in a terminal, which sends the signal to the command and all of its workers."""
    words = ["--results", str(tmp_path), "--jobs", "2", "--methods", "lora"]
    words += ["--set", "training.epochs=12", "--set", "training.validations=12"]
    process = start(
        [sys.executable, "-m", "quanta_bench.cli.main", "table", str(suite), *words],
        stderr=subprocess.STDOUT,
        process_group=0,
    )
    wait(lambda: list(tmp_path.glob("unfinished/*/last.ckpt")), process)
    assert len(workers(process)) == 2
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode in (1, 130)
    assert "rerun the command to resume" in said
    assert "Traceback" not in said
    assert not workers(process)
    assert not stored(tmp_path)
    assert not list(tmp_path.glob("*/.*"))

    settings = {"training.epochs": 12, "training.validations": 12}
    choice = Choice(methods=("lora",), settings=settings)
    request = make_request(str(suite), "table", "embedded", choice, check=True)
    _, failed = sweep(request.grid, Store(tmp_path), Console(file=io.StringIO()), lambda _: "")
    assert failed == []
    runs = stored(tmp_path).values()
    assert len(runs) == 2
    assert any(run["training"]["resumed"] for run in runs)
    assert not list(tmp_path.glob("unfinished/*"))
