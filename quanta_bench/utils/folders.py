"""Folders that are whole or not there at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its place only if the block ends well.

    A process that is killed leaves nothing that looks whole; what it leaves is removed the next
    time. Files reach the disk before the folder gets its name. To be called while holding a lock on
    ``target``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.part-"
    for left in target.parent.glob(prefix + "*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=target.parent, ignore_cleanup_errors=True
    ) as scratch:
        folder = Path(scratch) / target.name
        folder.mkdir()
        yield folder
        for path in (*folder.rglob("*"), folder):
            _flush(path)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
        _flush(target.parent)


def _flush(path: Path) -> None:
    """Have the system write a file or a folder's entries to the disk, where it can."""
    with suppress(OSError):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
