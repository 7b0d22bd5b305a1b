"""Commands of the suite, as tests give them, and what a command says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quanta_bench.cli import main

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


def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path
) -> Said:
    """Run a command in this process."""
    monkeypatch.setattr(sys, "argv", ["quanta-bench", *map(str, words)])
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    with pytest.raises(SystemExit) as ended:
        main.main()
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return Said(ended.value.code, out, err)


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "quanta_bench.cli", *map(str, words)]


def start(words: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start a process whose output is read, that finds what this one does, and that Ctrl-C stops.

    A job that a script put in the background ignores Ctrl-C, and so would its children.

    Args:
        words: the program and its arguments.
        options: further ones of `subprocess.Popen`.
    """
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        words,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **{**pipes, "env": environment, **options},
    )
