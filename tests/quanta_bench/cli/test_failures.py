"""How a command ends that fails or is stopped: one message, and an exit status."""

from __future__ import annotations

import subprocess
import sys

import pytest
from command_line import STOPPED, Bench, command

from quanta_bench.cli import main
from quanta_bench.errors import BenchError


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BenchError("it broke"), 1, "quanta-bench: it broke"),
        (RuntimeError("odd"), 1, "unexpected RuntimeError: odd"),
    ],
)
def test_every_failure_is_one_message(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, said: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.delenv("QUANTA_BENCH_DEBUG", raising=False)
    monkeypatch.setattr("quanta_bench.cli.listing.methods", fail)
    found = bench("methods")
    assert found.status == status
    assert said in found.err


def test_ctrl_c_is_no_fault_and_says_how_to_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quanta_bench.cli.listing.methods", stop)
    found = bench("methods")
    assert found.status in STOPPED
    assert "rerun the command to resume" in found.err


def test_debug_shows_where_it_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("odd")

    monkeypatch.setenv("QUANTA_BENCH_DEBUG", "1")
    monkeypatch.setattr("quanta_bench.cli.listing.methods", fail)
    monkeypatch.setattr(sys, "argv", ["quanta-bench", "methods"])
    with pytest.raises(RuntimeError, match="odd"):
        main.main()


def test_a_closed_pipe_is_no_failure() -> None:
    line = " ".join(command("methods", "--json")) + " | head -n 1; echo ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""
