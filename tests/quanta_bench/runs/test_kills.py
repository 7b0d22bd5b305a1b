"""Sweeps that are killed in every way, again and again: nothing finished is lost or repeated.

Each kill comes after a run has finished, with two runs at once. Final tables equal that of a sweep
that nobody disturbed, to the last digit.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from animals import write_data, write_suite
from command_line import start

KILLS = 40
RUNS = 7
"""The base once, LoRA with six seeds."""

WAYS = ("worker", "all", "worker", "parent", "SIGTERM", "worker", "SIGINT", "SIGINT twice")


class Sweep:
    """The command on one results folder."""

    def __init__(self, suite: Path, root: Path) -> None:
        self.root = root
        self._words = [sys.executable, "-m", "quanta_bench.cli.main", "table", str(suite)]
        self._words += ["--results", str(root), "--jobs", "2", "--seeds", "0,1,2,3,4,5"]
        self._words += ["--set", "training.epochs=10", "--set", "training.validations=10"]

    def start(self) -> subprocess.Popen[str]:
        return start(self._words, stderr=subprocess.STDOUT, process_group=0)

    def finished(self) -> dict[str, tuple[int, int]]:
        """The finished runs, and by what a repeated one is noticed."""
        stats = {path.parent.name: path.stat() for path in self.root.glob("runs/*/result.json")}
        return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}

    def owners(self) -> list[int]:
        """The processes that compute a run at the moment."""
        found = []
        for path in self.root.glob("leases/*.json"):
            try:
                found.append(int(json.loads(path.read_text())["process"]))
            except (OSError, ValueError):
                continue
        return [process for process in found if psutil.pid_exists(process)]


def until(ready: Callable[[], object], seconds: float = 600) -> bool:
    """Wait until something holds; whether it does."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill(process: subprocess.Popen[str], way: str, owners: list[int]) -> None:
    """Kill one worker, which leaves the command running, or end the command."""
    if way == "worker":
        os.kill(random.choice(owners), signal.SIGKILL)
    elif way == "all":
        os.killpg(process.pid, signal.SIGKILL)
    elif way == "parent":
        process.kill()
    elif way == "SIGTERM":
        process.terminate()
    else:
        # As a terminal does, which sends it to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        if way == "SIGINT twice":
            time.sleep(0.3)
            os.killpg(process.pid, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.timeout(9000)
def test_kills_lose_nothing_and_repeat_nothing(tiny_model: Path, tmp_path: Path) -> None:
    random.seed(0)
    suite = write_suite(tmp_path, write_data(tmp_path), tiny_model)
    whole = Sweep(suite, tmp_path / "whole")
    said, _ = (process := whole.start()).communicate()
    assert process.returncode == 0, said
    expected = (whole.root / "animals.csv").read_text()
    kills: Counter[str] = Counter()
    lost = repeated = folders = 0
    while kills.total() < KILLS:
        sweep = Sweep(suite, tmp_path / f"r{folders}")
        folders += 1
        status = None
        while status != 0:
            process = sweep.start()
            while kills.total() < KILLS:

                def ready(sweep: Sweep = sweep, process: subprocess.Popen[str] = process) -> bool:
                    return process.poll() is not None or bool(sweep.finished() and sweep.owners())

                assert until(ready)
                time.sleep(random.uniform(0, 0.8))
                before, owners = sweep.finished(), sweep.owners()
                if process.poll() is not None or not owners:
                    break
                way = WAYS[kills.total() % len(WAYS)]
                members = family(process)
                kill(process, way, owners)
                kills[way] += 1
                if way != "worker":
                    said, _ = process.communicate(timeout=600)
                    assert "Traceback" not in said
                    assert until(lambda members=members: not any(m.is_running() for m in members))
                after = sweep.finished()
                lost += len(before.keys() - after.keys())
                repeated += sum(after.get(name, stamp) != stamp for name, stamp in before.items())
                with (tmp_path / "figures").open("a") as figures:
                    figures.write(f"{kills.total()} {way}: {lost} lost, {repeated} repeated\n")
                if way != "worker":
                    break
            said, _ = process.communicate()
            status = process.returncode
            # Killed, stopped, or with a run whose workers were killed twice.
            assert status in (0, 1, 130, 143, -signal.SIGKILL, -signal.SIGINT), said
        assert len(sweep.finished()) == RUNS
        assert (sweep.root / "animals.csv").read_text() == expected
        assert not list(sweep.root.glob("leases/*"))
        assert not list(sweep.root.glob("unfinished/*"))
        assert not list(sweep.root.glob("*/.*"))
    print(f"{kills.total()} kills {dict(kills)} in {folders} sweeps: lost {lost}, {repeated=}")  # noqa: T201
    assert (lost, repeated) == (0, 0)
