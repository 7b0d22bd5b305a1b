"""`compare` from the command line: what it refuses, and with which words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from quanta_bench.cli import main


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path
) -> tuple[object, str]:
    """Status and errors of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["quanta-bench", "compare", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["quant", "lora", "--table", "3"], 2, "no row 'quant'. Did you mean 'quanta'?"),
        (["quanta", "lora", "--table", "3", "--reference", "dorra"], 2, "Did you mean 'dora'"),
        (["lora", "--table", "3"], 2, "Name two rows or more"),
        (["--table", "3"], 2, "Name two rows or more"),
        (["--table", "3", "--matched", "memory"], 2, "takes parameters or seconds, not 'memory'"),
        (["lora", "dora", "--table", "3", "--vary", "seed"], 2, "A seed cannot vary 'seed'"),
        (["quanta", "lora", "--table", "33"], 2, "33"),
        (["none", "lora", "--table", "1"], 2, "several rows of 'lora'"),
        (["quanta", "lora"], 2, "--table"),
        (
            ["quanta", "lora", "--table", "3", "--seeds", "0"],
            1,
            "Compute it: quanta-bench table 3 --seeds 0 --results nowhere --methods lora",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    message: str,
) -> None:
    found, error = run(monkeypatch, capsys, *words, "--results", "nowhere")
    assert found == status
    assert message in error
    assert "Traceback" not in error
