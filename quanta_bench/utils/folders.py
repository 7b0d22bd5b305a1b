"""Files and folders that are complete or absent, and one message where a disk is full or read-only.

Everything is written under another name, flushed to the disk, and renamed; so neither a killed
process nor a full disk nor a power cut leaves half a file under its final name.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from quanta_bench.errors import StorageError, UsageError

_REASONS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EIO,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)
_FULL = {errno.ENOSPC, errno.EDQUOT}

SCRATCH = ".*.part-*"
"""Pattern of the names under which files and folders are written."""


def user_path(text: str) -> Path:
    """A path as a user writes it, ``~`` standing for a home folder.

    Raises:
        UsageError: it names the home folder of a user that is not there.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{text}: {error}") from None


def is_taken(folder: Path) -> bool:
    """Whether something is there already: a file, or a folder that is not empty."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target`` that replaces it when the block ends without an error.

    What a killed process left behind is removed the next time. To be called while holding a lock
    on ``target``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.part-"
    for leftover in target.parent.glob(prefix + "*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=target.parent, ignore_cleanup_errors=True
    ) as scratch:
        folder = Path(scratch) / target.name
        folder.mkdir()
        yield folder
        for path in (*folder.rglob("*"), folder):
            _sync(path)
        # Moved, not removed file by file, which could be cut short.
        if target.exists():
            target.rename(Path(scratch) / "replaced")
        folder.rename(target)
        _sync(target.parent)


@contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """A binary stream whose content replaces ``target`` when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.part-{uuid.uuid4().hex}")
    try:
        with scratch.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    _sync(target.parent)


@contextmanager
def storage_errors(folder: Path, advice: str) -> Iterator[None]:
    """Report a failure to write below a folder in one message for the user.

    Args:
        folder: what the block writes to.
        advice: what the user can do about it: one or more sentences.

    Raises:
        StorageError: the disk is full, read-only or not permitted to this user.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        reason = _write_failure(error, folder)
        if reason is None:
            raise
        raise StorageError(f"{folder} cannot be written: {reason}. {advice}") from error


def check_writable(folder: Path, advice: str) -> None:
    """Create a folder if need be, and write to it.

    Raises:
        StorageError: see `storage_errors`.
    """
    with storage_errors(folder, advice):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:
            # A file system that the kernel makes up, such as /proc, holds no folders of ours.
            raise StorageError(f"{folder} cannot be made: {error.strerror}. {advice}") from error
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"x")


def _write_failure(error: BaseException, folder: Path) -> str | None:
    """Why a folder could not be written, if that is what an exception is about.

    Libraries raise exceptions of their own while they handle the system's, or quote its words.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for link in chain:
        if isinstance(link, OSError) and link.errno in _REASONS:
            elsewhere = link.filename is not None and not _below(str(link.filename), folder)
            if link.errno in _FULL or not elsewhere:
                return os.strerror(link.errno)
        for number in _FULL:
            if os.strerror(number) in str(link):
                return os.strerror(number)
    return None


def _below(name: str, folder: Path) -> bool:
    path, root = Path(name).absolute(), folder.absolute()
    return path.is_relative_to(root) or root.is_relative_to(path)


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return  # a link to nowhere, or a system that does not open folders
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems do not flush folders.
        if error.errno in _FULL or error.errno == errno.EIO:
            raise
    finally:
        os.close(handle)
