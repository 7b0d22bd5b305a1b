"""How many runs at once, by what there is: pure arithmetic, and limits of containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from quanta_bench.errors import UsageError
from quanta_bench.runs.concurrency import (
    Limits,
    Resources,
    available_resources,
    read_jobs,
    runs_at_once,
    threads_each,
    visible_gpu,
)

GB = 1e9


@pytest.mark.parametrize(
    ("cores", "jobs", "threads"),
    [(1, 1, 1), (2, 2, 1), (4, 4, 1), (6, 4, 1), (8, 4, 2), (16, 4, 4), (32, 8, 4), (64, 16, 4)],
)
def test_cores_decide_where_there_is_memory(cores: int, jobs: int, threads: int) -> None:
    resources = Resources(cores, 0, 1000 * GB)
    assert runs_at_once(resources, [5 * GB] * 40) == jobs
    assert threads_each(cores, jobs, most=cores) == threads


@pytest.mark.parametrize(
    ("resources", "memory", "jobs"),
    [
        (Resources(8, 0, 100 * GB), [5 * GB] * 3, 3),  # no more than there are runs
        (Resources(8, 0, 100 * GB), [5 * GB], 1),
        (Resources(8, 0, 100 * GB), [], 1),
        (Resources(8, 1, 100 * GB), [5 * GB] * 9, 1),  # a GPU is one run's
        (Resources(4, 0, 20 * GB), [3 * GB] * 9, 4),
        (Resources(4, 0, 20 * GB), [9 * GB, *[3 * GB] * 9], 3),  # 15 of 16
        (
            Resources(4, 0, 20 * GB),
            [9 * GB, 9 * GB, *[3 * GB] * 9],
            1,
        ),  # 18: the large coincide
        (Resources(4, 0, 1 * GB), [9 * GB] * 9, 1),  # one is always tried
        (Resources(4, 0, 100 * GB), [3 * GB, None], 1),
    ],
)
def test_memory_and_the_number_of_runs_bound_it(
    resources: Resources, memory: list[float | None], jobs: int
) -> None:
    assert runs_at_once(resources, memory) == jobs


def test_threads_are_never_more_than_one_run_alone_would_have() -> None:
    assert threads_each(16, 2, most=16) == 8
    assert threads_each(16, 2, most=1) == 1  # OMP_NUM_THREADS=1
    assert threads_each(2, 4, most=2) == 1


@pytest.mark.parametrize(
    ("worker", "gpus", "visible", "given"),
    [
        (0, 0, None, None),
        (3, 1, None, None),
        (1, 2, None, "1"),
        (2, 2, None, "0"),
        (1, 2, "4, 6", "6"),
    ],
)
def test_workers_share_out_gpus(
    worker: int, gpus: int, visible: str | None, given: str | None
) -> None:
    assert visible_gpu(worker, gpus, visible) == given


def test_words() -> None:
    assert read_jobs("auto") is None
    assert read_jobs("3") == 3
    for words in ("0", "-1", "1.5", "many", "", "²"):
        with pytest.raises(UsageError, match="--jobs takes a number"):
            read_jobs(words)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_limits_of_a_container_and_of_the_groups_above(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "own": "0::/user/job",
            "cg/user/cpu.max": "150000 100000",
            "cg/user/job/cpu.max": "max 100000",
            "cg/user/memory.max": "max",
            "cg/user/job/memory.max": "8000",
            "cg/user/job/memory.current": "5000",
            "cg/user/job/memory.stat": "anon 1000\ninactive_file 1500\nactive_file 7",
        },
    )
    limits = Limits(tmp_path / "cg", tmp_path / "own")
    assert limits.cores() == 2
    assert limits.memory() == 4500


def test_limits_of_the_first_version(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "own": "4:memory:/job\n1:cpu,cpuacct:/job\n0::/",
            # Inside a container its own group is the root, whatever its path is outside.
            "cg/cpu,cpuacct/cpu.cfs_quota_us": "50000",
            "cg/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "cg/memory/job/memory.limit_in_bytes": "9000",
            "cg/memory/job/memory.usage_in_bytes": "1000",
        },
    )
    limits = Limits(tmp_path / "cg", tmp_path / "own")
    assert limits.cores() == 1
    assert limits.memory() == 8000


def test_no_limits(tmp_path: Path) -> None:
    write(tmp_path, {"own": "1:cpu:/\n0::/", "cg/cpu/cpu.cfs_quota_us": "-1"})
    for limits in (Limits(tmp_path / "cg", tmp_path / "own"), Limits(tmp_path, tmp_path / "no")):
        assert limits.cores() > 1000
        assert limits.memory() == float("inf")


def test_available_resources_has_something() -> None:
    resources = available_resources()
    assert resources.cores >= 1
    assert resources.memory > 1e6
