"""The attempts at each run of a launch, whichever worker made them.

A local command counts failures in its memory. Workers on several machines share only the results
folder, so each attempt leaves lines in a file of its run, written while its lease is held: it
began, it ended, it failed. One that began and never ended was lost with its worker.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from quanta_bench import errors
from quanta_bench.errors import BenchError, RunKilledError
from quanta_bench.runs.claims import is_worth_retrying

MOST_FAILURES = 2
"""Attempts after which a failing run is given up, as by one command on one machine."""

MOST_LOSSES = 10
"""Lost workers after which a run is given up.

More than failures, because a cluster takes workers away for reasons that are not the run's.
"""


class Entry(BaseModel):
    """One line of a run's file.

    Attributes:
        event: what happened.
        host: on which machine.
        process: in which process.
        kind: of a failure, the name of its error.
        cause: of a failure, its message.
    """

    event: Literal["began", "ended", "failed"]
    host: str
    process: int
    kind: str = ""
    cause: str = ""

    @property
    def error(self) -> BenchError:
        """The error of a failure."""
        kind = getattr(errors, self.kind, BenchError)
        known = isinstance(kind, type) and issubclass(kind, BenchError)
        return (kind if known else BenchError)(self.cause)


@dataclass(frozen=True)
class History:
    """What happened to a run, the earliest first."""

    entries: tuple[Entry, ...] = ()

    @property
    def failures(self) -> list[BenchError]:
        """The errors of failed attempts."""
        return [entry.error for entry in self.entries if entry.event == "failed"]

    @property
    def attempts(self) -> list[Entry]:
        """The beginnings of all attempts."""
        return [entry for entry in self.entries if entry.event == "began"]

    @property
    def open(self) -> int:
        """Attempts that have not ended: lost ones, and the one in progress."""
        ended = sum(entry.event == "ended" for entry in self.entries)
        return len(self.attempts) - ended

    @property
    def lost(self) -> int:
        """Attempts that were followed by another one and had not ended."""
        count = 0
        going = False
        for entry in self.entries:
            if entry.event == "began":
                count += going
                going = True
            elif entry.event == "ended":
                going = False
        return count

    @property
    def going(self) -> bool:
        """Whether the last attempt has not ended, as far as is known."""
        states = [entry.event for entry in self.entries if entry.event in ("began", "ended")]
        return states[-1:] == ["began"]

    @property
    def final(self) -> BenchError | None:
        """Why the run is given up; ``None`` if it is not."""
        failures = self.failures
        if failures and (len(failures) >= MOST_FAILURES or not is_worth_retrying(failures[-1])):
            return failures[-1]
        if self.open > MOST_LOSSES:
            hosts = ", ".join(sorted({entry.host for entry in self.attempts}))
            return RunKilledError(
                f"{MOST_LOSSES} workers were lost while they computed it: {hosts}."
            )
        return None


class Ledger:
    """The histories of a launch's runs, a file a run.

    Args:
        folder: where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def runs(self) -> set[str]:
        """The runs that were begun."""
        return {path.stem for path in self.folder.glob("*.jsonl")}

    def history(self, run: str) -> History:
        """What happened to a run; damaged lines are left out."""
        entries = []
        for line in filter(None, self._content(run).splitlines()):
            with suppress(ValidationError):
                entries.append(Entry.model_validate_json(line))
        return History(tuple(entries))

    @contextmanager
    def attempt(self, run: str) -> Iterator[None]:
        """Note that an attempt begins, and that it ends, however it does."""
        self._add(run, "began")
        try:
            yield
        finally:
            self._add(run, "ended")

    def fail(self, run: str, error: BaseException) -> None:
        """Note that an attempt failed."""
        self._add(run, "failed", kind=type(error).__name__, cause=str(error))

    def _add(self, run: str, event: Literal["began", "ended", "failed"], **more: str) -> None:
        entry = Entry(event=event, host=socket.gethostname(), process=os.getpid(), **more)
        # The line of a killed process may lack its end.
        self._append(run, f"\n{entry.model_dump_json(exclude_defaults=True)}\n".encode())

    def _append(self, run: str, line: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{run}.jsonl").open("ab") as stream:
            stream.write(line)

    def _content(self, run: str) -> bytes:
        try:
            return (self.folder / f"{run}.jsonl").read_bytes()
        except FileNotFoundError:
            return b""
