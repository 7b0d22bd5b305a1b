"""How many runs are computed at once on this machine, and with how many threads each.

A run of a small model leaves cores idle between its operations, so several runs of one thread each
get more done than one of several threads. A GPU belongs to one run alone.

The limits of control groups are read by hand: psutil and joblib know none on memory, and
`joblib.cpu_count` reads the processor's from the topmost group only, not from the process's own.
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

CORES_A_RUN = 4
"""Up to so many cores, each gets a run of its own; beyond, so many cores share a run."""

USABLE_MEMORY = 0.8
"""Share of the free memory that runs may take by their estimates. An assumption."""


@dataclass(frozen=True)
class Resources:
    """What this process may use of the machine.

    Attributes:
        cores: processor cores.
        gpus: GPUs.
        memory: free bytes of main memory.
    """

    cores: int
    gpus: int
    memory: float


def read_jobs(text: str) -> int | None:
    """The value of ``--jobs``: a number of runs at once; ``None`` for ``auto``.

    Raises:
        UsageError: it is neither a number above 0 nor ``auto``.
    """
    if text == AUTO:
        return None
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return int(text)
    raise UsageError(f"--jobs takes a number of runs from 1 on, or {AUTO}, not {text!r}.")


def runs_at_once(resources: Resources, memory: Sequence[float | None]) -> int:
    """How many runs to compute at once.

    With a GPU one. Without, one a core on up to four cores, four on up to sixteen, and beyond one
    for every four cores, which share the memory's bandwidth; never more than there are runs, nor
    than fit into `USABLE_MEMORY` of the free memory if the largest of them coincide. A run whose
    memory is unknown is computed alone.

    Args:
        resources: what this process may use.
        memory: bytes that each run is estimated to take, ``None`` where that is unknown.
    """
    known = sorted((size for size in memory if size is not None), reverse=True)
    if resources.gpus or len(known) < len(memory):
        return 1
    most = max(min(resources.cores, CORES_A_RUN), resources.cores // CORES_A_RUN)
    usable = USABLE_MEMORY * resources.memory
    fitting = (n for n in range(min(len(known), most), 1, -1) if sum(known[:n]) <= usable)
    return next(fitting, 1)


def threads_each(cores: int, jobs: int, most: int) -> int:
    """Threads of each of so many runs at once; at most ``most``, those of a run alone."""
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


def available_resources() -> Resources:
    """What this process may use at the moment, container limits included."""
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
        own: the file that names this process's groups.
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
            fields = _read(folder / "cpu.max").split()  # "max 100000" or "150000 100000"
            if not fields:
                fields = [_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
            quota, period = (_number(field) for field in fields)
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
            yield from (top / group for group in (relative, *relative.parents))


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


def _number(text: str) -> float | None:
    """A number; ``None`` for ``max`` and for an empty text."""
    try:
        return float(text)
    except ValueError:
        return None
