"""A results folder with other processes in it, without room, or read-only."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quanta_bench.errors import StorageError
from quanta_bench.results.store import Store
from quanta_bench.runs import sweep as sweeps
from quanta_bench.runs.cells import Cells
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.sweep import sweep
from quanta_bench.runs.worker_pool import WorkerPool
from quanta_bench.spec import Job
from quanta_bench.suites.grid import GridRow, grid
from quanta_bench.suites.schema import Suite
from quanta_bench.utils import folders


def small_profile(model: Path, data: Path) -> dict[str, Any]:
    """A base and LoRA with two seeds: three runs of seconds."""
    source = f"local:{data}"
    training = {"train_items": 4, "validation_items": 2, "validations": 1, "precision": "float32"}
    return {
        "model": ".",
        "model_source": f"local:{model}",
        "seeds": [0, 1],
        "training": {"source": source, **training},
        "evaluation": {"source": source, "items": 3},
        "rows": ["none", "lora"],
    }


@pytest.fixture
def rows(tiny_model: Path, llm_adapters: Path) -> list[GridRow]:
    """Its rows."""
    profile = small_profile(tiny_model, llm_adapters)
    content = {"name": "t", "tasks": ["boolq"], "profiles": {"embedded": profile}}
    return grid(Suite.model_validate(content), "embedded")


def compute(rows: list[GridRow], folder: Path, **options: Any) -> tuple[list[Cells], str]:
    console = Console(file=io.StringIO(), width=100)
    cells, failed = sweep(rows, Store(folder), console, lambda _: "", **options)
    assert failed == []
    return cells, console.file.getvalue()  # type: ignore[attr-defined]


def complete(cells: list[Cells]) -> bool:
    return all(cell.complete == list(cell.row.seeds) for cell in cells)


def names(rows: list[GridRow]) -> list[str]:
    runner = Runner(Store(Path()), Silent())
    jobs = [Job("x", *job) for row in rows for job in row.jobs]
    return [runner.identify(PlannedRun.of(job)).training for job in jobs]


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_run_of_another_process_is_left_to_it_and_taken_from_it(
    rows: list[GridRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """The other process holds LoRA's first seed until this one has computed all the rest."""
    store = Store(tmp_path)
    held = names(rows)[1]
    done = threading.Event()
    runs = Counter[str]()
    finish, wait = sweeps._Board.finish, sweeps._Board.wait

    def count(self: Any, run: Any, *rest: Any) -> None:
        runs[run.name] += 1
        finish(self, run, *rest)

    def give_up(self: Any, held: Any) -> bool:
        waits = wait(self, held)
        done.set()
        return waits

    monkeypatch.setattr(sweeps._Board, "finish", count)
    monkeypatch.setattr(sweeps._Board, "wait", give_up)
    ready = threading.Event()

    def other() -> None:
        with store.leases.hold(held):
            ready.set()
            done.wait()

    thread = threading.Thread(target=other)
    thread.start()
    ready.wait()
    cells, shown = compute(rows, tmp_path, at_once=at_once)
    thread.join()
    assert complete(cells)
    assert set(runs.values()) == {1}
    assert list(runs)[-1] == "LoRA r=8, seed 0"
    assert "another process is computing it" in shown
    assert "Waiting for other processes: LoRA r=8, seed 0." in shown


SWEEP = """
import io, json, sys
from rich.console import Console
from quanta_bench.results.store import Store
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.sweep import sweep
from quanta_bench.suites.grid import grid
from quanta_bench.suites.schema import Suite
from pathlib import Path

suite, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
plain = Runner.compute_share
def computed(self, planned, names):
    with open(folder / "computed", "a") as lines:
        lines.write(names.run + "\\n")
    return plain(self, planned, names)
Runner.compute_share = computed
rows = grid(Suite.model_validate(suite), "embedded")
cells, failed = sweep(rows, Store(folder), Console(file=io.StringIO()), lambda _: "")
assert failed == [], failed
assert all(cell.complete == list(cell.row.seeds) for cell in cells)
"""


def test_processes_on_one_folder_all_end_with_the_whole_table(
    tiny_model: Path, llm_adapters: Path, tmp_path: Path
) -> None:
    """Four processes, of which one is killed while it computes; the others take its run over."""
    profile = small_profile(tiny_model, llm_adapters)
    suite = {"name": "t", "tasks": ["boolq"], "profiles": {"embedded": profile}}
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-c", SWEEP, json.dumps(suite), str(tmp_path)]
    processes = {
        process.pid: process
        for process in (
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            for _ in range(4)
        )
    }
    while not (owners := list(tmp_path.glob("leases/*.json"))):
        time.sleep(0.005)
    killed = processes.pop(json.loads(owners[0].read_text())["process"])
    killed.kill()
    killed.communicate()
    for process in processes.values():
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    computed = Counter((tmp_path / "computed").read_text().split())
    assert len(computed) == 3
    assert sum(computed.values()) <= 4
    assert tree(tmp_path) == {"runs": 3, "trainings": 3, "computed": 0, "unfinished": 0}


def tree(root: Path) -> dict[str, int]:
    """The number of files in each folder; of empty ones, only that of checkpoints."""
    counts = {path.name: len(list(path.glob("*"))) for path in root.iterdir()}
    return {name: count for name, count in counts.items() if count or name != "leases"}


def test_a_full_disk_is_one_message_and_the_same_command_goes_on(
    rows: list[GridRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills at every place in turn where something is made durable."""
    sync = os.fsync
    room = 0

    def until_full(handle: int) -> None:
        nonlocal room
        room -= 1
        if room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    rows = rows[1:]
    messages: list[str] = []
    for place in range(0, 200, 3):
        room = place
        folder = tmp_path / str(place)
        with monkeypatch.context() as patch:
            patch.setattr(folders.os, "fsync", until_full)
            try:
                compute(rows, folder)
            except StorageError as error:
                messages.append(str(error).replace(str(folder), "FOLDER"))
            else:
                break
        if place % 9 == 0:
            cells, _ = compute(rows, folder)
            assert complete(cells)
    assert len(messages) > 4
    start = "FOLDER cannot be written: No space left on device. Free space there"
    assert not [message for message in messages if not message.startswith(start)]


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(
    rows: list[GridRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    (tmp_path / "file").touch()
    refuse: Callable[..., None] = lambda *_, **__: pytest.fail("computed")  # noqa: E731
    monkeypatch.setattr(Runner, "compute", refuse)
    monkeypatch.setattr(WorkerPool, "start", refuse)
    with pytest.raises(StorageError, match="file cannot be written: Not a directory"):
        compute(rows, tmp_path / "file", at_once=at_once)


def test_finished_runs_are_read_from_a_folder_that_cannot_be_written(
    rows: list[GridRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute(rows, tmp_path)

    def refuse(*_: object) -> None:
        raise StorageError("read-only")

    monkeypatch.setattr(Store, "check_writable", refuse)
    cells, _ = compute(rows, tmp_path)
    assert complete(cells)


def test_a_damaged_precision_is_chosen_anew(rows: list[GridRow], tmp_path: Path) -> None:
    for content in ("", "[]", '{"base": 3}', '{"other": "float32"}'):
        folder = Store(tmp_path).unfinished_folder(names(rows)[1])
        folder.mkdir(parents=True)
        (folder / "precision.json").write_text(content)
        cells, _ = compute(rows[1:], tmp_path, fresh="all")
        assert complete(cells)
