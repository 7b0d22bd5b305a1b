"""The console of commands: its width, and what it says at Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from command_line import start

from quanta_bench.cli import console as terminal
from quanta_bench.cli.console import STOPPING, UNBOUNDED
from quanta_bench.utils.plain_console import PlainConsole


def test_a_pipe_has_the_width_that_its_lines_need(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    console = terminal.console()
    assert console.width == UNBOUNDED
    console.print("word " * 100)
    assert capsys.readouterr().out == "word " * 100 + "\n"


def test_columns_set_the_width_of_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert terminal.console().width == 100


def test_what_is_done_may_have_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = PlainConsole(file=StringIO(), force_terminal=True, width=60)
    monkeypatch.setattr(terminal, "progress", lambda: shown)
    with terminal.working("LoRA [q_proj] [/x]"):
        pass
    assert "LoRA [q_proj] [/x] ..." in shown.file.getvalue()  # type: ignore[attr-defined]


COMPUTING = """
import ctypes, signal, sys, time
from quanta_bench.cli.console import acknowledge_interrupts

with acknowledge_interrupts():
    # A call of a library that goes on after a signal: here until it reads a character.
    signal.siginterrupt(signal.SIGINT, False)
    try:
        print("started", flush=True)
        ctypes.CDLL(None).getchar()
        time.sleep(600)
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_is_acknowledged_before_the_computation_ends(tmp_path: Path) -> None:
    words = [sys.executable, "-c", COMPUTING]
    with start(words, stdin=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        time.sleep(1)  # The library's call follows the line at once.
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().strip() == ""
        assert process.stderr.readline().strip() == STOPPING
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stderr.readline().strip() == "ended"


def test_the_former_listener_to_signals_is_restored() -> None:
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with terminal.acknowledge_interrupts():
        pass
    assert signal.set_wakeup_fd(before) == before
