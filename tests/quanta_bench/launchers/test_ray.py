"""Ray itself: a cluster on this machine with two workers, one of which is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from swept import Swept

from quanta_bench.errors import BenchError
from quanta_bench.launchers.launch import Launch
from quanta_bench.launchers.ray_cluster import RayLauncher, RaySettings
from quanta_bench.suites.grid import GridRow

pytest.importorskip("ray", reason="Ray is not installed")

Rows = Callable[..., list[GridRow]]


class Killer(threading.Thread):
    """Kills the first worker that computes something once a run is finished."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.root = root
        self.killed = ""
        self.finished: dict[Path, int] = {}

    def run(self) -> None:
        while not self.killed:
            time.sleep(0.002)
            finished = {path: path.stat().st_ino for path in self.root.glob("runs/*/result.json")}
            for lease in self.root.glob("leases/*.json"):
                if not finished or any(lease.stem in path.parent.name for path in finished):
                    continue
                try:
                    process = json.loads(lease.read_bytes())["process"]
                    os.kill(process, signal.SIGKILL)
                except (OSError, ValueError):
                    continue
                self.killed, self.finished = lease.stem, finished
                break


# Starting Ray and three workers, each of which imports the libraries, takes 20 s of CPU.
def test_two_workers_one_of_them_killed_make_the_whole_table(
    make_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, and nothing repeated but the run whose worker was killed."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    rows = make_rows(seeds=4, epochs=4, validations=4)
    root = tmp_path / "launched"
    killer = Killer(root)
    killer.start()
    launcher = RayLauncher(RaySettings(), 2, lambda text: None)
    with warnings.catch_warnings():
        # What Ray itself does when it starts and ends is not this suite's business.
        warnings.simplefilter("ignore")
        launcher.connect()
        try:
            swept = Swept(rows, root, elsewhere=Launch(launcher))
        finally:
            launcher.close()
    assert killer.killed
    assert swept.complete
    assert swept.failed == []
    assert "was lost; another one computes it" in swept.shown
    for path, number in killer.finished.items():
        assert path.stat().st_ino == number, "a finished run was computed again"
    assert not list(root.glob("leases/*"))
    assert not list(root.glob("launches/*"))
    expected = Swept(rows, tmp_path / "local").numbers
    assert swept.numbers == {run: pytest.approx(values) for run, values in expected.items()}


def test_an_address_without_a_cluster_is_one_message() -> None:
    launcher = RayLauncher(RaySettings(address="nonsense://here"), None, lambda text: None)
    with pytest.raises(BenchError, match="There is no Ray cluster at 'nonsense://here'"):
        launcher.connect()
