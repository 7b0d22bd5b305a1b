"""Manners of every command: help, completion, pipes, -q and -v, colours, what to do next."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import Bench, command, run_here

from quanta_bench.cli import checks, main
from quanta_bench.cli.checks import FIRST_STEPS, Finding, next_steps
from quanta_bench.runs import progress
from quanta_bench.training.single_process import quiet
from quanta_bench.utils import verbosity
from quanta_bench.utils.quiet import quiet_libraries

COMMANDS: dict[str, Any] = typer.main.get_command(main.app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_page_ends_with_examples_that_are_understood(name: str, bench: Bench) -> None:
    said = re.sub(r"\\\n\s+", "", bench(name, "--help").out)  # long examples go on below
    examples = re.findall(r"^ +(?:\w+=\S+ )?quanta-bench (.*)$", said.split("Examples:")[1], re.M)
    assert examples
    for example in examples:
        words = [word.strip("'\"") for word in re.findall(r"'[^']*'|\S+", example)]
        assert words[0] in COMMANDS
        COMMANDS[words[0]].make_context(words[0], words[1:])
    assert {"--quiet", "--verbose"} <= set(re.findall(r"--\w+", said))


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("tab", {"table"}),
        ("run --method quan", {"quanta"}),
        ("table 3 --methods lora,+quan", {"lora,+quanta"}),
        ("table 3 --logger t", {"tensorboard", "trackio"}),
        ("tasks boo", {"boolq"}),
        ("table tableF", {"tableF5", "tableF6", "tableF7"}),
        ("table 3 --profile p", {"paper"}),
        ("table 3 --profile o", {"one-gpu"}),
    ],
)
def test_a_shell_completes_commands_and_names(
    typed: str, completed: set[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = f"quanta-bench {typed}"
    monkeypatch.setenv("_QUANTA_BENCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    said = run_here(monkeypatch, capsys)
    assert said.status == 0
    assert set(said.out.split()) == completed


def run(data: Path, model: Path, results: Path) -> list[str]:
    words = ["run", "--method", "none", "--task", f"jsonl:{data}", "--model", f"local:{model}"]
    return [*words, "--results", str(results)]


def test_a_pipe_has_the_result_alone_and_progress_is_lines_beside_it(
    bench: Bench, data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = run(data, tiny_model, tmp_path)
    said = bench(*words)
    assert said.status == 0
    assert said.out.lstrip().startswith("none on ")
    assert "Loading packages." in said.err
    assert "none: scoring, item" in said.err
    assert not {"\x1b", "\r"} & set(said.out + said.err)
    quiet = bench(*words, "-q", "--fresh")
    assert quiet.status == 0
    assert quiet.err == ""
    assert [*map(str.split, quiet.out.splitlines())][2] == said.out.splitlines()[2].split()


def test_quiet_leaves_errors(bench: Bench) -> None:
    said = bench("methods", "loar", "-q")
    assert said.status == 2
    assert "Did you mean 'lora'" in said.err


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals of POSIX")
@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_has_colours_unless_no_color_is_set(no_color: str) -> None:
    import pty

    screen, end = pty.openpty()
    environment = {key: os.environ[key] for key in os.environ if key not in ("COLUMNS", "NO_COLOR")}
    environment |= {"TERM": "xterm-256color"} | ({"NO_COLOR": no_color} if no_color else {})
    words = command("settings", "training.epochs")
    process = subprocess.Popen(words, stdout=end, stderr=end, stdin=end, env=environment)
    os.close(end)
    shown = b""
    while part := _read(screen):
        shown += part
    assert process.wait() == 0
    os.close(screen)
    assert b"training.epochs" in shown
    coloured = re.search(rb"\x1b\[[\d;]*3[0-7]m", shown)
    assert (coloured is None) == bool(no_color)


def _read(screen: int) -> bytes:
    """What a pseudo-terminal shows next; nothing once its other end is closed."""
    try:
        return os.read(screen, 4096)
    except OSError:
        return b""


# --- verbose --------------------------------------------------------------------------------------


def test_verbose_prints_the_traceback_of_an_unexpected_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(checks, "check", fail)
    for words, traceback in ((["-v"], True), ([], False)):
        said = run_here(monkeypatch, capsys, "doctor", *words)
        assert said.status == 1
        assert "quanta-bench: unexpected RuntimeError: a fault" in said.err
        assert ("Traceback (most recent call last)" in said.err) == traceback
    assert verbosity.VARIABLE not in os.environ


def test_verbose_lets_libraries_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    from transformers.utils import logging as transformers_logging

    level, lightning = transformers_logging.get_verbosity(), logging.getLogger("lightning.pytorch")
    before = lightning.level
    with quiet_libraries(), quiet():
        assert transformers_logging.get_verbosity() != level
        assert lightning.level == logging.ERROR
    monkeypatch.setenv(verbosity.VARIABLE, "verbose")
    with quiet_libraries(), quiet():
        assert transformers_logging.get_verbosity() == level
        assert lightning.level == before


def test_verbose_logs_progress_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    counts = {}
    for level in ("", "verbose"):
        monkeypatch.setenv(verbosity.VARIABLE, level)
        console = Console(force_terminal=False, record=True, width=200)
        with progress.Screen(console, [1.0]) as screen:
            line = screen.begin("lora")
            for step in range(60):
                now[0] += 1
                line.training(step, 60)
        counts[level] = console.export_text().count("training, step")
    assert counts[""] == 1
    assert counts["verbose"] >= 10


# --- doctor ---------------------------------------------------------------------------------------


def test_doctor_ends_with_what_to_do_next(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    good, hub = Finding("python", True, "3.12"), Finding("hub", False, "off", needed=False)
    bad = Finding("disk", False, "1 GB free; 2 GB are needed")
    model = Finding("embedded model", False, "not in the cache", command="quanta-bench fetch")
    data = Finding("embedded data", False, "not in the cache", command="quanta-bench fetch")
    assert next_steps([good, hub]) == list(FIRST_STEPS)
    assert next_steps([good, model, data]) == ["quanta-bench fetch", "quanta-bench doctor"]
    assert next_steps([bad, model]) == [
        "repair disk, as said above", "quanta-bench fetch", "quanta-bench doctor",
    ]  # fmt: skip
    monkeypatch.setattr(checks, "check", lambda: [good, model])
    said = bench("doctor")
    assert said.status == 1
    assert said.out.endswith("\nNext:\n  quanta-bench fetch\n  quanta-bench doctor\n")


@pytest.mark.parametrize("step", FIRST_STEPS)
def test_the_first_steps_are_commands(step: str) -> None:
    name, *rest = step.partition("#")[0].split()[1:]
    COMMANDS[name].make_context(name, rest)
