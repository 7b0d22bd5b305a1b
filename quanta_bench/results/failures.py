"""Why attempts to compute runs failed: kept on disk, whatever becomes of the runs later."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from quanta_bench.utils.fingerprint import text_digest
from quanta_bench.utils.folders import whole_file


class Failure(BaseModel):
    """A failed attempt.

    Attributes:
        kind: name of the error.
        cause: what happened, as the user was told.
        time: when, in UTC.
        host: on which machine.
        process: in which process.
        specs: hash of the run's specs, by which it is known without its model and data; empty in
            files of earlier versions.
        model: content hash of its base model; empty in files of earlier versions, as what follows.
        training_data: fingerprints of its training data, by task and split.
        evaluation_data: fingerprints of its scored data, by task.
    """

    kind: str
    cause: str
    time: str
    host: str
    process: int
    specs: str = ""
    model: str = ""
    training_data: dict[str, Any] = {}
    evaluation_data: dict[str, Any] = {}

    @classmethod
    def of(cls, error: BaseException, specs: str = "", **content: Any) -> Failure:
        """The failure that an error stands for, here and now."""
        return cls(
            kind=type(error).__name__,
            cause=str(error),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            host=socket.gethostname(),
            process=os.getpid(),
            specs=text_digest(specs) if specs else "",
            **content,
        )


class Failures:
    """The failures of runs, a file a run.

    Args:
        folder: where the files are; made with the first failure.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, run: str) -> list[Failure]:
        """A run's failed attempts, the earliest first; none if its file is damaged."""
        try:
            content = json.loads((self.folder / f"{run}.json").read_bytes())
            return [Failure.model_validate(one) for one in content]
        except (OSError, ValueError, TypeError, ValidationError):
            return []

    def by_specs(self) -> dict[str, list[Failure]]:
        """The last failed attempt of each run that has one, by the hash of its specs."""
        found: dict[str, list[Failure]] = {}
        for path in sorted(self.folder.glob("*.json")):
            for last in self.of(path.stem)[-1:]:
                if last.specs:
                    found.setdefault(last.specs, []).append(last)
        return found

    def add(self, run: str, error: BaseException, specs: str = "", **content: Any) -> None:
        """Note a failed attempt; without room for it, the message to the user has to do.

        Args:
            run: the run's name.
            error: why it failed.
            specs: a text of its specs, equal for runs that are the same.
            content: what of its content a `Failure` has.
        """
        known = [one.model_dump() for one in (*self.of(run), Failure.of(error, specs, **content))]
        with suppress(OSError), whole_file(self.folder / f"{run}.json") as stream:
            stream.write(json.dumps(known, indent=1).encode())
