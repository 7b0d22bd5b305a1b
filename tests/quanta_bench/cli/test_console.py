"""The console of commands: its width, and what it says at Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quanta_bench.cli import console as terminal
from quanta_bench.cli.console import STOPPING, UNBOUNDED


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


COMPUTING = """
import hashlib, sys, time
from quanta_bench.cli.console import acknowledge_interrupts

with acknowledge_interrupts():
    try:
        print("started", flush=True)
        # One call of a library, which Python cannot interrupt before it ends.
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**6)
        time.sleep(600)
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_is_acknowledged_before_the_computation_ends(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", COMPUTING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        lines = [line.strip() for line in process.stderr if line.strip()]
    assert lines == [STOPPING, "ended"]


def test_the_former_listener_to_signals_is_restored() -> None:
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with terminal.acknowledge_interrupts():
        pass
    assert signal.set_wakeup_fd(before) == before
