"""Ten thousand runs on 256 workers, a fifth of them preempted, in simulated time."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulated_cluster import Cluster

MOST_OVERHEAD = 0.02
"""Share of the workers' time that may go into claiming and waiting."""


def simulate(root: Path, monkeypatch: pytest.MonkeyPatch, runs: int, workers: int) -> Cluster:
    cluster = Cluster(root, runs, workers, 0.2, monkeypatch)
    cluster.run()
    hours = cluster.alive / 3600
    print(  # noqa: T201
        f"{runs} runs, {workers} workers at once, {len(cluster.workers)} in all, "
        f"{cluster.preemptions} preempted: {cluster.lost} lost, {cluster.repeated} repeated, "
        f"{cluster.overhead:.2%} of {hours:,.0f} h claiming "
        f"({sum(w.claiming for w in cluster.workers) / 3600:.1f} h) and waiting "
        f"({sum(w.waiting for w in cluster.workers) / 3600:.1f} h); "
        f"{cluster.world.now / 3600:.2f} h from start to end"
    )
    return cluster


def check(cluster: Cluster) -> None:
    assert sorted(cluster.finished) == sorted(run.run for run in cluster.order.runs)
    assert cluster.failed == []
    assert cluster.lost == 0
    assert cluster.repeated == 0
    assert len(cluster.attempts) == len(cluster.finished) + cluster.preemptions
    assert not list(cluster.root.glob("leases/*"))
    assert cluster.overhead <= MOST_OVERHEAD


def test_preempted_workers_lose_nothing_and_repeat_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = simulate(tmp_path, monkeypatch, 400, 10)
    assert cluster.preemptions > 60
    check(cluster)


@pytest.mark.slow
def test_ten_thousand_runs_on_256_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = simulate(tmp_path, monkeypatch, 10_000, 256)
    assert cluster.preemptions > 2000
    check(cluster)
