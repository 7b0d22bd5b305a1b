"""Child processes: fresh interpreters that compute calls and send messages on the way.

A child is a fresh interpreter, not a fork, so its measurements include nothing of this process; nor
does it import the caller's script. It ends when its parent does, however that ended. Not a pool of
`concurrent.futures` or joblib, because those break when a process is killed, and their calls can
neither report progress nor be interrupted.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from types import FrameType
from typing import IO, Any, TypeVar

import psutil

from quanta_bench.errors import BenchError

R = TypeVar("R")

INTERRUPT = signal.SIGUSR2
"""Interrupts a child as Ctrl-C would; a terminal sends Ctrl-C itself to every process."""

GRACE_SECONDS = 10.0
"""What interrupted children get to put their files in order, before they are killed."""

LONGEST_END = 30.0
"""Seconds after which a child without a parent ends in any case."""

_MAIN = "import sys; from quanta_bench.utils.processes import serve; serve(int(sys.argv[1]))"


def printed_lines(log: IO[bytes]) -> list[str]:
    """The lines that a child has printed into a log which it still writes to."""
    # pread, because the child writes through the same open file.
    size = os.fstat(log.fileno()).st_size
    text = os.pread(log.fileno(), size, 0).decode(errors="replace")
    return [line.rstrip() for line in text.splitlines() if line.strip()]


@dataclass(frozen=True)
class Message:
    """What a call hands to its ``tell``."""

    content: Any


@dataclass(frozen=True)
class Returned:
    """The end of a call."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """The end of a call by an exception; the child's traceback is among its notes."""

    error: Exception


Reply = Message | Returned | Raised


class ChildError(Exception):
    """Stands for an exception that cannot be sent to another process."""


class ChildDiedError(BenchError):
    """A child ended in the middle of a call.

    Attributes:
        killed: whether it was killed by the system, as it is when memory runs out.
    """

    def __init__(self, reason: str, *, killed: bool) -> None:
        super().__init__(reason)
        self.killed = killed


@dataclass(frozen=True)
class _Call:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    tells: bool

    def compute(self, tell: Callable[[Any], None]) -> Any:
        return self.function(*self.arguments, **({"tell": tell} if self.tells else {}))


class ChildProcess:
    """A fresh process that computes calls one after another.

    Attributes:
        connection: readable when there is a reply; for :func:`multiprocessing.connection.wait`.
        pid: its process id.

    Args:
        log: file for whatever is printed there; by default it is printed where this process does.
        environment: variables in addition to this process's own.
    """

    def __init__(
        self, *, log: IO[bytes] | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _MAIN, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # What is importable here is importable there.
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
                    **(environment or {}),
                },
                pass_fds=[theirs.fileno()],
            )
        self.pid = self._process.pid

    def call(self, function: Callable[..., Any], *arguments: Any, tells: bool = False) -> None:
        """Let the child compute a call after those that it was given before.

        Args:
            function: a function of a module, not a lambda or a closure.
            arguments: what it is called with; these, messages and the end are pickled.
            tells: whether the function has a keyword ``tell``, a function that sends a
                :class:`Message` here.
        """
        call = pickle.dumps(_Call(function, arguments, tells))
        # A child that is gone is noticed where its reply is received.
        with suppress(OSError):
            self.connection.send_bytes(call)

    def receive(self) -> Reply:
        """The child's next reply.

        Raises:
            ChildDiedError: it ended without one.
        """
        try:
            data = self.connection.recv_bytes()
        except (EOFError, OSError):
            self._process.wait()
            raise self._died() from None
        reply: Reply = pickle.loads(data)
        return reply

    def _died(self) -> ChildDiedError:
        status = self._process.returncode
        killed = status == -signal.SIGKILL
        if killed:
            reason = "was killed, as the system does when memory runs out"
        elif status < 0:
            reason = f"ended by {signal.Signals(-status).name}"
        else:
            reason = f"ended with exit status {status}"
        return ChildDiedError(reason, killed=killed)

    def close(self, grace: float = GRACE_SECONDS) -> None:
        """See :func:`close_all`."""
        close_all([self], grace)


def close_all(children: Iterable[ChildProcess], grace: float = GRACE_SECONDS) -> None:
    """End children: one that is computing is interrupted, and killed if it does not stop.

    Args:
        children: the processes.
        grace: seconds until they are killed, with the processes that they started.
    """
    children = list(children)
    end = monotonic() + grace
    try:
        for child in children:
            child.connection.close()
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child._process.wait(max(0.0, end - monotonic()))
    finally:
        for child in children:
            if child._process.poll() is None:
                _kill_family(child.pid)
                child._process.wait()


def in_own_process(
    function: Callable[..., R],
    *arguments: Any,
    tell: Callable[[str], None] | None = None,
    log: Path | None = None,
) -> R:
    """Call a function in a fresh process and return what it returns.

    Args:
        function: a function of a module, not a lambda or a closure.
        arguments: what it is called with; these, the result and an exception are pickled.
        tell: where given, the function has a keyword of this name for a function that hands a
            line of text to this one.
        log: file for whatever is printed there; by default it is printed where this process does.

    Raises:
        BenchError: the process died, as one that runs out of memory does.
        Exception: whatever the function raises.
        KeyboardInterrupt: the user stopped; the process and those that it started are gone.
    """
    if log is not None:
        with log.open("wb") as stream:
            return _call_in(ChildProcess(log=stream), function, arguments, tell, log)
    return _call_in(ChildProcess(), function, arguments, tell, None)


def _call_in(
    child: ChildProcess,
    function: Callable[..., R],
    arguments: tuple[Any, ...],
    tell: Callable[[str], None] | None,
    log: Path | None,
) -> R:
    try:
        child.call(function, *arguments, tells=tell is not None)
        while True:
            match child.receive():
                case Message(content):
                    if tell is not None:
                        tell(content)
                case Returned(value):
                    return value  # type: ignore[no-any-return]
                case Raised(error):
                    if log is not None:
                        with log.open("a", encoding="utf-8") as stream:
                            stream.writelines(getattr(error, "__notes__", []))
                    raise error
    except ChildDiedError as error:
        where = f" What it printed is in {log}." if log else ""
        raise BenchError(f"Its process {error}.{where}") from None
    finally:
        child.close()


def serve(descriptor: int) -> None:
    """What a child does: compute the calls that arrive until its parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(INTERRUPT, _interrupt)
    signal.signal(signal.SIGTERM, _terminate)
    connection = Connection(descriptor)
    calls: SimpleQueue[bytes] = SimpleQueue()

    def tell(content: Any) -> None:
        connection.send_bytes(pickle.dumps(Message(content)))

    try:
        # From here on the parent may go, and the interruption comes.
        threading.Thread(target=_listen, args=(connection, calls), daemon=True).start()
        while True:
            reply = _compute(calls.get(), tell)
            sys.stdout.flush()
            connection.send_bytes(reply)
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # the parent stopped or is gone


def _compute(call: bytes, tell: Callable[[Any], None]) -> bytes:
    try:
        return pickle.dumps(Returned(pickle.loads(call).compute(tell)))
    except BrokenPipeError:
        raise
    except (Exception, SystemExit) as error:
        sent = _sendable(error)
        sent.add_note(traceback.format_exc())
        return pickle.dumps(Raised(sent))


def _listen(connection: Connection, calls: SimpleQueue[bytes]) -> None:
    try:
        while True:
            calls.put(connection.recv_bytes())
    except (EOFError, OSError):
        os.kill(os.getpid(), INTERRUPT)
        time.sleep(LONGEST_END)
        os._exit(1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _terminate(number: int, frame: FrameType | None) -> None:
    """End as without a handler, which Lightning would replace by one that goes on."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _sendable(error: BaseException) -> Exception:
    """The error itself if it survives the way to another process, or one that says the same."""
    if isinstance(error, Exception):
        with suppress(Exception):
            pickle.loads(pickle.dumps(error))
            return error
    return ChildError(f"{type(error).__name__}: {error}")


def _kill_family(pid: int) -> None:
    """Kill a process and those that it started."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for member in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                member.kill()
