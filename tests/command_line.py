"""Commands of the suite, as tests give them, and what a command says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

STOPPED = (1, 130)  # 130 is what shells and typer make of Ctrl-C


@dataclass
class Said:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def both(self) -> str:
        # The width that a message is broken at is not the test's business.
        return " ".join((self.out + self.err).split())


Bench = Callable[..., Said]


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "quanta_bench.cli", *map(str, words)]
