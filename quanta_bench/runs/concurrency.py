"""How many runs are computed at once on this machine, and with how many threads each.

A run of a small model leaves cores idle between its operations, so several runs of one thread each
get more done than one of several threads. A GPU is one run's alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from quanta_bench.errors import UsageError

VARIABLE = "QUANTA_BENCH_JOBS"
AUTO = "auto"

FEW = 4
"""Up to so many cores each has a run of its own; a run of more cores has up to so many threads."""

USABLE = 0.8
"""Part of the free memory that runs may be estimated to need. An assumption."""


@dataclass(frozen=True)
class Machine:
    """What this process may use.

    Attributes:
        cores: processor cores.
        gpus: GPUs.
        memory: free bytes of main memory.
    """

    cores: int
    gpus: int
    memory: float


def read_jobs(words: str) -> int | None:
    """The number of runs at once that the user names; ``None`` for ``auto``.

    Raises:
        UsageError: it is neither a number above 0 nor ``auto``.
    """
    if words == AUTO:
        return None
    if words.isascii() and words.isdecimal() and int(words) > 0:
        return int(words)
    raise UsageError(f"--jobs takes a number of runs from 1 on, or {AUTO}, not {words!r}.")


def runs_at_once(machine: Machine, needs: Sequence[float | None]) -> int:
    """How many runs to compute at once.

    With a GPU one. Without, one a core on up to four cores, four on up to sixteen, and beyond one
    for every four cores, which share the memory's bandwidth; never more than there are runs, nor
    than fit into `USABLE` of the free memory if the largest of them coincide. A run whose need is
    unknown is computed alone.

    Args:
        machine: what there is.
        needs: bytes that each run is estimated to need, ``None`` where that is unknown.
    """
    if machine.gpus or any(need is None for need in needs):
        return 1
    most = min(len(needs), max(min(machine.cores, FEW), machine.cores // FEW))
    largest = sorted((need for need in needs if need is not None), reverse=True)
    fitting = (n for n in range(most, 1, -1) if sum(largest[:n]) <= USABLE * machine.memory)
    return next(fitting, 1)


def threads_each(cores: int, jobs: int, most: int) -> int:
    """Threads of each of so many runs at once, at most what one run alone would have."""
    return max(1, min(cores // jobs, most))


def visible_gpu(worker: int, gpus: int, visible: str | None) -> str | None:
    """The ``CUDA_VISIBLE_DEVICES`` of a worker: one GPU, in turn; ``None`` leaves it as it is.

    Args:
        worker: number of the worker, from 0.
        gpus: how many GPUs this process sees.
        visible: its own ``CUDA_VISIBLE_DEVICES``, if set.
    """
    if gpus < 2:
        return None
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    return names[worker % len(names)].strip()


def this_machine() -> Machine:
    """The machine as this process may use it, container limits included."""
    import psutil
    import torch

    limits = Limits()
    return Machine(
        cores=max(1, min(_cores(), limits.cores())),
        gpus=torch.cuda.device_count() if torch.cuda.is_available() else 0,
        memory=min(float(psutil.virtual_memory().available), limits.memory()),
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Limits:
    """The limits of Linux control groups, versions 1 and 2; none where there are none.

    Args:
        root: where control groups are mounted.
        own: the file that says which are this process's.
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
        """Cores whose time the process may use, at least one."""
        least = 1 << 20
        for folder in self._folders("cpu"):
            words = _read(folder / "cpu.max").split()  # "max 100000" or "150000 100000"
            if not words:
                words = [_read(folder / f"cpu.cfs_{part}_us") for part in ("quota", "period")]
            quota, period = (_number(word) for word in words)
            if quota and period and quota > 0:
                least = min(least, max(1, round(quota / period)))
        return least

    def memory(self) -> float:
        """Bytes that the process may still take."""
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
        """The process's groups and all above; a container sees its own at the root."""
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
            yield from (top / part for part in (relative, *relative.parents))


def _reclaimable(folder: Path) -> float:
    """Bytes of files in memory, which a group counts as used and the system gives back."""
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


def _number(word: str) -> float | None:
    """A number; ``None`` for ``max`` and for nothing."""
    try:
        return float(word)
    except ValueError:
        return None
