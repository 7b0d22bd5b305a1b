"""Leases: which process computes what, on one machine or on several with a shared folder.

A lease is a file that names its owner, who renews it by a heartbeat. It ends with its owner: at
once if the owner's process is seen to be gone, otherwise when somebody has watched it for the time
that it promises without a heartbeat. Nothing relies on flock, which network file systems may lack,
nor on clocks of several machines that agree: a watcher measures with its own.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from time import monotonic
from typing import NamedTuple, TypeAlias

import psutil
from pydantic import BaseModel, ValidationError

from quanta_bench.errors import RunInProgressError

HEARTBEAT_SECONDS = 10.0
"""Interval between heartbeats."""

EXPIRY_SECONDS = 60.0
"""How long a watcher waits for a heartbeat; so long a process may be busy or a server hang."""

_Right: TypeAlias = tuple[Path, int, int]
"""A file that gives the right to remove a lease: path, inode and time of modification in ns."""

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Owner(BaseModel):
    """What the file of a lease says.

    Attributes:
        token: tells this lease from every other.
        host: name of the machine, for people.
        machine: the machine since its start, with the namespace of its process numbers.
        process: number of the process.
        seconds: without a heartbeat for so long, the lease has expired.
    """

    token: str
    host: str
    machine: str
    process: int
    seconds: float = EXPIRY_SECONDS

    @classmethod
    def here(cls) -> Owner:
        """A new owner in this process."""
        return cls(
            token=uuid.uuid4().hex,
            host=socket.gethostname(),
            machine=_machine(),
            process=os.getpid(),
        )

    @property
    def gone(self) -> bool:
        """Whether its process is known to have ended; false on any other machine."""
        if self.machine != _machine():
            return False
        try:
            return bool(psutil.Process(self.process).status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


class _Seen(NamedTuple):
    """A lease as it was read.

    Attributes:
        owner: its owner; ``None`` if the file is damaged.
        beat: changes with each heartbeat.
    """

    owner: Owner | None
    beat: tuple[int, int]


class Heart:
    """Calls a function every `HEARTBEAT_SECONDS`, in a thread of its own.

    Args:
        beat: the function.
        name: name of the thread.
    """

    def __init__(self, beat: Callable[[], None], name: str) -> None:
        self._beat = beat
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop; a beat in progress ends first."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(HEARTBEAT_SECONDS):
            self._beat()


class Lease:
    """A lease of this process.

    Attributes:
        lost: whether another process took it, because no heartbeat came through for too long.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        self.lost = False
        self._path = path
        self._owner = owner
        self._heart = Heart(self._beat, f"lease {path.stem}")

    def check(self) -> None:
        """Raise an error if the lease is lost, as far as the last heartbeat knows.

        Raises:
            RunInProgressError: it is lost.
        """
        if self.lost:
            raise RunInProgressError(
                f"Another process has taken {self._path.stem} over, because this one gave no sign "
                f"for {self._owner.seconds:.0f} s."
            )

    def confirm(self) -> None:
        """Like `check`, after a look at the file."""
        self._renew()
        self.check()

    def release(self) -> None:
        """End the lease."""
        self._heart.stop()
        seen = _read(self._path)
        if seen is not None and seen.owner == self._owner:
            self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        # A server that does not answer may do so at the next beat.
        with suppress(OSError):
            self._renew()

    def _renew(self) -> None:
        try:
            with self._path.open("rb") as stream:
                if _owner(stream.read()) == self._owner:
                    # The open file, so that no other one is renewed.
                    os.utime(stream.fileno())
                    return
        except FileNotFoundError:
            pass
        self.lost = True


class Leases:
    """The leases in a folder, by name.

    Args:
        folder: where their files are; made when one is taken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, Lease] = {}
        self._watched: dict[str, tuple[_Seen, float]] = {}
        self._rights: dict[_Right, float] = {}
        self._alive: set[str] = set()

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold a lease while the block runs.

        Raises:
            RunInProgressError: another process, or another thread, holds it; or it was lost during
                the block, whatever that raised.
        """
        lease = self._held[name] = self._take(name)
        try:
            yield
        except Exception:
            # What another process does to the same files looks like any error.
            lease.check()
            raise
        finally:
            del self._held[name]
            lease.release()

    def check(self, name: str) -> None:
        """Raise an error if a lease that is held was lost; see :meth:`Lease.check`."""
        if name in self._held:
            self._held[name].check()

    def confirm(self, name: str) -> None:
        """Like `check`, after a look at the file; before something is stored."""
        if name in self._held:
            self._held[name].confirm()

    def is_free(self, name: str) -> bool:
        """Whether nobody holds a lease; one that has ended is removed.

        A lease of another machine has ended once it was asked for long enough without a heartbeat.
        """
        path = self._path(name)
        seen = _read(path)
        if seen is None:
            self._watched.pop(name, None)
            self._alive.discard(name)
            return True
        if not self._has_ended(name, seen):
            return False
        self._alive.discard(name)
        _remove(path, seen, self._rights)
        return _read(path) is None

    def is_alive(self, name: str) -> bool:
        """Whether `is_free` has seen a sign of a lease's owner since the lease was first seen."""
        return name in self._alive

    def names(self) -> list[str]:
        """The names of all leases, ended or not."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _take(self, name: str) -> Lease:
        owner = Owner.here()
        path = self._path(name)
        if not (self.is_free(name) and _create(path, owner)):
            seen = _read(path)
            holder = seen.owner if seen else None
            by = f"Process {holder.process} on {holder.host}" if holder else "Another process"
            raise RunInProgressError(f"{by} is computing {name} in {self.folder.parent}.")
        return Lease(path, owner)

    def _has_ended(self, name: str, seen: _Seen) -> bool:
        if seen.owner is not None and seen.owner.gone:
            return True
        known, since = self._watched.get(name, (None, 0.0))
        if known != seen:
            if known is not None:
                self._alive.add(name)
            self._watched[name] = seen, monotonic()
            return False
        return monotonic() - since > (seen.owner.seconds if seen.owner else EXPIRY_SECONDS)


@cache
def _machine() -> str:
    """This machine since its start, and its namespace of process numbers, as containers have."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def _create(path: Path, owner: Owner) -> bool:
    """Write a lease unless there is one; whole or not at all, also for who reads meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part-{owner.token}")
    text = owner.model_dump_json() + "\n"
    try:
        scratch.write_text(text, encoding="utf-8")
        try:
            os.link(scratch, path)
        except FileExistsError:
            # Over NFS also the answer to a request sent twice, of which the first succeeded.
            return scratch.stat().st_nlink == 2
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_exclusively(path, text)
        return True
    finally:
        scratch.unlink(missing_ok=True)


def _create_exclusively(path: Path, text: str) -> bool:
    """The same on a file system without hard links, where a reader may see it half-written."""
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        return False
    return True


def _remove(path: Path, seen: _Seen, rights: dict[_Right, float]) -> None:
    """Remove a lease that has ended, unless it is not the one that was seen any more.

    Who makes a file named after it may remove it, so that nobody removes its successor.

    Args:
        path: the lease.
        seen: the lease as it was seen.
        rights: when this process first saw each such file of another, by its own clock.
    """
    token = seen.owner.token if seen.owner else "damaged"
    right = path.with_name(f".{path.name}.part-{token}-removed")
    try:
        right.touch(exist_ok=False)
    except FileExistsError:
        # Its maker is at it, or was killed there.
        with suppress(FileNotFoundError):
            stat = right.stat()
            since = rights.setdefault((right, stat.st_ino, stat.st_mtime_ns), monotonic())
            if monotonic() - since > EXPIRY_SECONDS:
                right.unlink()
        return
    try:
        if _read(path) == seen:
            path.unlink(missing_ok=True)
    finally:
        right.unlink(missing_ok=True)


def _read(path: Path) -> _Seen | None:
    """A lease; ``None`` if there is none."""
    try:
        # Opened, because a network file system keeps what it says of closed files for a while.
        with path.open("rb") as stream:
            stat = os.fstat(stream.fileno())
            return _Seen(_owner(stream.read()), (stat.st_ino, stat.st_mtime_ns))
    except FileNotFoundError:
        return None


def _owner(content: bytes) -> Owner | None:
    try:
        return Owner.model_validate_json(content)
    except ValidationError:
        return None
