"""Content hashes: of files, of folders, of rows."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quanta_bench.utils.cache import cache_folder, keep

# Smaller files are read faster than the memo pays for.
_MEMO_BYTES = 8_000_000
SETTLED_SECONDS = 2.0
"""A file changed this recently may change again without its time stamp moving."""


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal.

    Digests of large files are remembered in the cache by path, size and times of change, so that
    a run does not read gigabytes of weights again.

    Raises:
        OSError: the file cannot be read.
    """
    path = path.resolve()
    before = path.stat()
    if before.st_size < _MEMO_BYTES:
        return _read(path)
    memo = cache_folder() / "fingerprints" / _text(str(path))[:32]
    stamp = [str(path), before.st_size, before.st_mtime_ns, before.st_ctime_ns]
    try:
        known = json.loads(memo.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # Not remembered, or not readable: the file itself always is the truth.
    digest = _read(path)
    if time.time() - max(before.st_mtime, before.st_ctime) > SETTLED_SECONDS:
        keep(memo, json.dumps({"stamp": stamp, "sha256": digest}).encode())
    return digest


def files_digest(root: Path, files: Iterable[Path]) -> str:
    """The sha256 over the names, relative to ``root``, and contents of files, in any order.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file does not lie under ``root``.
    """
    named = {path.relative_to(root).as_posix(): path for path in files}
    return _text("".join(f"{name}\0{file_digest(named[name])}\n" for name in sorted(named)))


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """The sha256 over rows, in order, as canonical JSON.

    The same rows have the same digest whatever file format they came from. Values that JSON does
    not know (dates, bytes) enter as their ``repr``.
    """
    digest = hashlib.sha256()
    encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=repr)
    for row in rows:
        digest.update(encoder.encode(row).encode() + b"\n")
    return digest.hexdigest()


def text_digest(*parts: str) -> str:
    """The sha256 of several texts; where each ends enters the hash."""
    return _text(json.dumps(parts))


def _text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
