"""A user's own model and data deep in folders: names in 80 columns are short, numbers whole."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from animals import write_data, write_suite
from command_line import Bench

DEEP = Path(*(f"{word}-of-somebody-who-names-folders-well" for word in ("work", "project", "data")))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with a model and data, and a suite over both."""
    folder = tmp_path_factory.mktemp("user") / DEEP
    folder.mkdir(parents=True)
    shutil.copytree(tiny_model, folder / "my-model")
    write_suite(folder, write_data(folder), folder / "my-model")
    return folder


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A terminal of 80 columns in a folder of its own."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def row_of(text: str, *start: str) -> list[str]:
    """The cells of the one line that starts with these words."""
    lines = [line.split() for line in text.splitlines() if line.split()[: len(start)] == [*start]]
    assert len(lines) == 1, text
    return lines[0]


def test_a_run_and_its_results_name_the_file_alone(deep: Path, narrow: Path, bench: Bench) -> None:
    task = f"jsonl:{deep / 'animals.jsonl'}"
    words = ["--task", task, "--model", f"local:{deep / 'my-model'}"]
    done = bench("run", "--method", "lora", *words, "--set", "lora.r=2")
    assert done.status == 0, done.err
    assert DEEP.name not in done.out
    assert row_of(done.out, "animals")[1] == "accuracy"
    assert row_of(done.out, "animals")[-1] == "8"
    (run,) = (narrow / "results" / "local" / "single" / "runs").iterdir()
    beside = bench("results", run, "--as", "peft", "--to", narrow / "peft")
    assert beside.status == 0, beside.err
    (file,) = (narrow / "peft").iterdir()
    assert file.name.endswith("-animals.json")
    shown = bench("results", run, "--beside", narrow / "peft").out
    assert DEEP.name not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_plans_and_pages_name_folders_by_their_last_part(
    deep: Path, narrow: Path, bench: Bench
) -> None:
    planned = bench("table", deep / "animals.yaml", "--dry-run").out
    assert DEEP.name not in planned
    assert re.search(r"^my-model +LoRA", planned, re.MULTILINE)
    assert re.search(r"^tasks +animals ", planned, re.MULTILINE)
    assert "Scored on animals: all items" in planned
    counted = bench("params", "--method", "lora", "--model", f"local:{deep / 'my-model'}").out
    assert "my-model (local folder)" in counted
    page = bench("tasks", f"jsonl:{deep / 'animals.jsonl'}").out
    assert page.splitlines()[0] == "jsonl:animals.jsonl: animals"
    # A command to copy has the whole path, in one piece.
    assert f"--task jsonl:{deep / 'animals.jsonl'}\n" in page


def test_a_path_in_a_message_is_never_broken(deep: Path, narrow: Path, bench: Bench) -> None:
    folder = narrow / DEEP / "results"
    words = ["--task", f"jsonl:{deep / 'animals.jsonl'}", "--model", f"local:{deep / 'my-model'}"]
    done = bench("run", "--method", "none", *words, "--results", folder)
    (run,) = (folder / "runs").iterdir()
    assert f"Stored in {run}\n" in done.out
    page = bench("report", "--results", folder)
    assert f"{folder / 'report.html'}" in page.out
    assert f"{DEEP.name}/animals" not in (folder / "report.html").read_text().split("--task")[0]
