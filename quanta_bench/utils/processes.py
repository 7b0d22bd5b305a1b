"""Calls in a fresh process, which has its own memory and is gone when the call ends."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import psutil

from quanta_bench.errors import BenchError

R = TypeVar("R")


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
    # Not forked: memory and threads of this process would be in the measurement.
    fresh = multiprocessing.get_context("spawn")
    ours, theirs = fresh.Pipe()
    process = fresh.Process(
        target=_serve, args=(theirs, function, arguments, tell is not None, log)
    )
    process.start()
    theirs.close()
    try:
        while True:
            kind, content = ours.recv()
            if kind == "returned":
                process.join()
                return content  # type: ignore[no-any-return]
            if kind == "raised":
                raise content
            if tell is not None:
                tell(content)
    except EOFError:
        process.join()
        raise BenchError(
            f"its process died (exit status {process.exitcode}); it may have run out of memory"
            + (f". What it said is in {log}." if log else ".")
        ) from None
    finally:
        _end(process)
        ours.close()


def _end(process: Any) -> None:
    """See that a process and those that it started are gone."""
    if process.is_alive():
        try:
            family = psutil.Process(process.pid)
            for one in [*family.children(recursive=True), family]:
                one.kill()
        except psutil.NoSuchProcess:
            pass
    process.join()


def _serve(
    connection: Any, function: Callable[..., Any], arguments: Any, tells: bool, log: Path | None
) -> None:
    """What the other process does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    options = {"tell": lambda text: connection.send(("told", text))} if tells else {}
    with _printing_to(log) if log else nullcontext():
        try:
            connection.send(("returned", function(*arguments, **options)))
        except KeyboardInterrupt:
            os._exit(130)
        except Exception as error:
            if log:
                traceback.print_exc()
            connection.send(("raised", _portable(error)))


def _end_with_parent() -> None:
    """Wait until the process that started this one is gone, however it ended, and go too."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error itself if it survives the way to another process, or one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    """Send what anything in this process prints to a file, libraries' own code included."""
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        with redirect_stdout(file), redirect_stderr(file):
            yield
