"""Choose how many runs are computed at once on this machine, and with how many threads each.

A run of a small model leaves cores idle between operations, so several single-threaded runs get
more done than one with several threads. A GPU is used by one run at a time.

Control-group limits are read directly: psutil and joblib do not report memory limits, and
`joblib.cpu_count` reads the CPU limit of the topmost group only, not of the process's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from quanta_bench.utils.counts import number_or_auto

VARIABLE = "QUANTA_BENCH_JOBS"

CORES_PER_RUN = 4
"""Up to this many cores, each gets its own run; beyond, this many cores share a run."""

GPU_TOGETHER = 16
"""Runs trained together on a GPU; more share a pass less and less."""

USABLE_MEMORY = 0.8
"""Assumed fraction of the free memory that runs may use according to their estimates."""


@dataclass(frozen=True)
class Resources:
    """What this process may use of the machine.

    Attributes:
        cores: CPU cores.
        gpus: GPUs.
        memory: free bytes of main memory.
    """

    cores: int
    gpus: int
    memory: float


def read_jobs(text: str) -> int | None:
    """Parse ``--jobs``: the number of concurrent runs, or ``None`` for ``auto``.

    Raises:
        UsageError: the text is neither a number from 1 to 9999 nor ``auto``.
    """
    return number_or_auto("--jobs", text)


def runs_at_once(resources: Resources, memory: Sequence[float | None]) -> int:
    """How many runs to compute at once.

    One with a GPU. Without a GPU, one per core on up to four cores, four on up to sixteen, and
    beyond that one for every four cores, which share the memory bandwidth; never more than there
    are runs, nor more than fit into `USABLE_MEMORY` of the free memory if the largest coincide. A
    run of unknown size is computed alone.

    Args:
        resources: what this process may use.
        memory: estimated bytes of each run; ``None`` if unknown.
    """
    known = sorted((size for size in memory if size is not None), reverse=True)
    if resources.gpus or len(known) < len(memory):
        return 1
    most = max(min(resources.cores, CORES_PER_RUN), resources.cores // CORES_PER_RUN)
    usable = USABLE_MEMORY * resources.memory
    fitting = (n for n in range(min(len(known), most), 1, -1) if sum(known[:n]) <= usable)
    return next(fitting, 1)


def read_together(text: str) -> int | None:
    """Parse ``--together``: how many runs are trained together, or ``None`` for ``auto``.

    Raises:
        UsageError: the text is neither a number from 1 to 9999 nor ``auto``.
    """
    return number_or_auto("--together", text)


def runs_together(device: str) -> int:
    """How many runs are trained together on a device, by its type.

    On a GPU, where small models are bound by the number of launches, `GPU_TOGETHER`: their rows are
    computed in passes of as many tokens as a micro-batch of one run may have, so that the memory is
    that of one run and the adapters. On a processor, which is bound by arithmetic, one.
    """
    return 1 if device == "cpu" else GPU_TOGETHER


def threads_each(cores: int, jobs: int, most: int) -> int:
    """Threads per run for ``jobs`` concurrent runs; at most ``most``, those of a single run."""
    return max(1, min(cores // jobs, most))


def visible_gpu(worker: int, gpus: int, visible: str | None) -> str | None:
    """A worker's ``CUDA_VISIBLE_DEVICES``: one GPU each, round robin; ``None`` to inherit it.

    Args:
        worker: index of the worker.
        gpus: number of GPUs visible to this process.
        visible: this process's ``CUDA_VISIBLE_DEVICES``, if set.
    """
    if gpus < 2:
        return None
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    return names[worker % len(names)].strip()


def available_resources() -> Resources:
    """What this process may use now, container limits included."""
    import psutil
    import torch

    limits = Limits()
    return Resources(
        cores=max(1, min(_cores(), limits.cores())),
        gpus=torch.cuda.device_count() if torch.cuda.is_available() else 0,
        memory=min(float(psutil.virtual_memory().available), limits.memory()),
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Limits:
    """The limits of Linux control groups, versions 1 and 2; elsewhere there are none.

    Args:
        root: where control groups are mounted.
        own: the file that lists this process's groups.
    """

    def __init__(
        self, root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
    ) -> None:
        self._root = root
        self._own: list[tuple[str, str]] = []
        with suppress(OSError):
            for line in own.read_text(encoding="utf-8").splitlines():
                _, controllers, path = line.split(":", 2)
                self._own.append((controllers, path))

    def cores(self) -> int:
        """Number of cores that the process may use, at least one."""
        least = 1 << 20
        for folder in self._folders("cpu"):
            fields = _read(folder / "cpu.max").split()  # "max 100000" or "150000 100000"
            if not fields:
                fields = [_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
            quota, period = (_number(field) for field in fields)
            if quota and period and quota > 0:
                least = min(least, max(1, round(quota / period)))
        return least

    def memory(self) -> float:
        """Bytes that the process may still allocate."""
        least = float("inf")
        for folder in self._folders("memory"):
            limit = _number(_read(folder / "memory.max"))
            used = _number(_read(folder / "memory.current"))
            if limit is None:
                limit = _number(_read(folder / "memory.limit_in_bytes"))
                used = _number(_read(folder / "memory.usage_in_bytes"))
            if limit is not None and used is not None:
                least = min(least, max(0.0, limit - used + _reclaimable(folder)))
        return least

    def _folders(self, controller: str) -> Iterator[Path]:
        """The process's groups and their ancestors; a container sees its own group at the root."""
        for controllers, path in self._own:
            if not controllers:
                top = self._root
            elif controller in controllers.split(","):
                top = self._root / controllers
                if not top.is_dir():
                    top = self._root / controller
            else:
                continue
            relative = Path(path.lstrip("/"))
            yield from (top / group for group in (relative, *relative.parents))


def _reclaimable(folder: Path) -> float:
    """Bytes of cached files, which a group counts as used but the system can reclaim."""
    for line in _read(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return _number(value) or 0.0
    return 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _number(text: str) -> float | None:
    """A number; ``None`` for ``max`` and for an empty text."""
    try:
        return float(text)
    except ValueError:
        return None
