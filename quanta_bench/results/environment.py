"""Where and with what a run is computed: recorded beside every number, never part of a hash."""

from __future__ import annotations

import contextlib
import gc
import platform
import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from quanta_bench.results.store import Environment

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "quanta-bench",
    "torch",
    "transformers",
    "peft",
    "pytorch-lightning",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
)


def this_device() -> torch.device:
    """Where this machine computes: the GPU if there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def environment(jobs: int = 1) -> Environment:
    """This process's environment, with so many runs computed at once on the machine."""
    import torch

    commit, dirty = _git()
    return Environment(
        packages={name: found for name in PACKAGES if (found := _version(name))},
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        threads=torch.get_num_threads(),
        jobs=jobs,
        git_commit=commit,
        git_dirty=dirty,
    )


def reset_peak_memory() -> None:
    """Let :func:`peak_memory` start anew, where the system can: on a GPU, and on Linux."""
    import torch

    # What earlier runs left in reference cycles would count as this one's.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Largest resident size since the reset, in bytes; on a GPU the largest allocation.

    Where the system cannot reset it, it is that of the process so far.
    """
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def _git() -> tuple[str, bool]:
    """Commit of the checkout this package lies in and whether it has changes; empty if none."""
    here = Path(__file__).parents[2]

    def ask(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")) != here:
            return "", False
        return ask("rev-parse", "HEAD"), bool(ask("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return "", False
