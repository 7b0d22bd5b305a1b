"""The cache folder, and what is built once in it: complete, or absent."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from quanta_bench.utils.folders import storage_errors, whole_file, whole_folder

VARIABLE = "QUANTA_BENCH_CACHE"


def cache_folder() -> Path:
    """Where downloads and conversions are kept; the variable ``QUANTA_BENCH_CACHE`` moves it."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser().absolute() if named else user_cache_path("quanta-bench")


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Build a folder unless it exists.

    The folder is filled under another name and renamed when it is complete, so a killed process
    leaves nothing that looks complete. Of several processes one builds and the others wait; the
    operating system frees the lock of a process that dies.

    Args:
        target: the folder.
        build: fills the empty folder it is given.

    Returns:
        ``target``.

    Raises:
        StorageError: the disk is full or the place is not writable.
        Exception: whatever ``build`` raises.
    """
    if target.is_dir():
        return target
    advice = f"Make room there, or set {VARIABLE} to a folder with more space."
    with storage_errors(target, advice):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{target.name}.lock"):
            if not target.is_dir():
                with whole_folder(target) as folder:
                    build(folder)
    return target


def keep(path: Path, content: bytes) -> None:
    """Write a file of the cache, complete or not at all.

    A file that cannot be written costs time later and never a result, so nothing is raised.
    """
    with suppress(OSError), whole_file(path) as stream:
        stream.write(content)
