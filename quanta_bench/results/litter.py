"""Remove what killed processes left in a results folder, and nothing that is in use."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from quanta_bench.errors import RunInProgressError
from quanta_bench.results.leases import Leases
from quanta_bench.utils.folders import SCRATCH

UNUSED_SECONDS = 3600.0
"""Files that are written in a moment, of which no lease tells whether they are in use, are litter
when they are this old."""


def remove_litter(root: Path, leases: Leases) -> None:
    """Remove leases that have ended, half-written files and checkpoints of finished trainings.

    What belongs to a training goes while its lease is held here; a training that another process
    computes keeps everything.

    Args:
        root: the results folder.
        leases: its leases.

    Raises:
        OSError: the folder cannot be written.
    """
    for name in leases.names():
        leases.is_free(name)
    by_training: dict[str, list[Path]] = defaultdict(list)
    for training, path in _litter(root):
        by_training[training].append(path)
    for training, paths in by_training.items():
        with suppress(RunInProgressError), leases.hold(training):
            for path in paths:
                _remove(path)
    # Locks of earlier versions, and files that are no training's.
    for path in (*root.glob("unfinished/*.lock"), *root.glob(SCRATCH), *root.glob(f"*/{SCRATCH}")):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > UNUSED_SECONDS:
                _remove(path)


def _litter(root: Path) -> Iterator[tuple[str, Path]]:
    """Half-written files and folders, and needless checkpoints, each with its training."""
    for path in root.glob(f"runs/{SCRATCH}"):
        # .METHOD-TRAINING-EVALUATION.part-*
        parts = path.name.split(".part-")[0].rsplit("-", 2)
        if len(parts) == 3:
            yield parts[1], path
    for path in root.glob(f"trainings/{SCRATCH}"):
        yield path.name.split(".part-")[0].removeprefix("."), path
    for path in root.glob(f"unfinished/*/{SCRATCH}"):
        yield path.parent.name, path
    for path in root.glob("unfinished/*/"):
        if (root / "trainings" / path.name / "training.json").exists():
            yield path.name, path


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
