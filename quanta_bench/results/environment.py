"""Where and with what a run is computed: recorded with every result, never part of a hash."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from quanta_bench.results.records import Environment

if TYPE_CHECKING:
    pass

PACKAGES = (
    "quanta-bench",
    "torch",
    "transformers",
    "peft",
    "lightning",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
)

CODE = ("quanta_bench", "baselines", "tasks", "pyproject.toml", "constraints.txt")
"""What of a checkout can change a number."""


@cache
def environment(jobs: int = 1, devices: int = 1, strategy: str = "") -> Environment:
    """This process's environment.

    Args:
        jobs: how many runs are computed at once on the machine.
        devices: over how many devices each is spread.
        strategy: how it is.
    """
    import torch

    commit, dirty = git_state()
    return Environment(
        packages={name: found for name in PACKAGES if (found := _version(name))},
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        threads=torch.get_num_threads(),
        jobs=jobs,
        devices=devices,
        strategy=strategy,
        git_commit=commit,
        git_dirty=dirty,
    )


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


def git_state(here: Path = Path(__file__).parents[2]) -> tuple[str, bool]:
    """Commit of a checkout and whether its code has uncommitted changes; empty if it is none.

    Args:
        here: the checkout; by default the one that this package lies in.
    """

    def ask(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")) != here:
            return "", False
        # Of a user's own data, suites and results beside the code, none changes a number.
        return ask("rev-parse", "HEAD"), bool(ask("status", "--porcelain", "--", *CODE))
    except (OSError, subprocess.SubprocessError):
        return "", False
