"""The cache folder, and what is built once in it: whole, or not there at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from quanta_bench.errors import BenchError
from quanta_bench.utils.folders import whole_folder

VARIABLE = "QUANTA_BENCH_CACHE"

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


def cache_folder() -> Path:
    """Where downloads and conversions are kept; the variable ``QUANTA_BENCH_CACHE`` moves it."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser().absolute() if named else user_cache_path("quanta-bench")


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Build a folder unless it is there.

    The folder is filled under another name and renamed when it is complete, so a process that is
    killed leaves nothing that looks whole. Of several processes one builds and the others wait;
    the operating system frees the lock of a process that dies.

    Args:
        target: the folder.
        build: fills the empty folder it is given.

    Returns:
        ``target``.

    Raises:
        BenchError: the disk is full or the place is not writable; whatever ``build`` raises.
    """
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{target.name}.lock"):
            if not target.is_dir():
                with whole_folder(target) as folder:
                    build(folder)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise BenchError(
            f"{target} cannot be written: {error.strerror}. Make room there, or set "
            f"{VARIABLE} to a folder with more space."
        ) from error
    return target


def keep(path: Path, content: bytes) -> None:
    """Write a file of the cache, whole or not at all.

    One that cannot be written costs time later and never a result, so nothing is raised.
    """
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            Path(scratch).replace(path)
        finally:
            Path(scratch).unlink(missing_ok=True)
