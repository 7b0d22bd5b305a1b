"""Tables D.1 and H from the command line: their files, and the words that they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run_here

from quanta_bench.cli import appendix


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path
) -> tuple[object, str, str]:
    """Status, output and errors of a command in this process."""
    said = run_here(monkeypatch, capsys, *words)
    return said.status, said.out, said.err


@pytest.mark.parametrize("name", ["D1", "tableD1", "H", "tableH"])
def test_they_are_known_by_both_names(name: str) -> None:
    found = appendix.find(name)
    assert found is not None
    assert found.name in (name, f"table{name}")


def test_the_names_of_suites_are_not_theirs() -> None:
    assert appendix.find("3") is None
    assert appendix.find("my.yaml") is None


def test_table_d1_is_written_in_every_format(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    llm_adapters: Path,
) -> None:
    words = ["table", "D1", "--profile", "paper", "--source", f"local:{llm_adapters}"]
    status, out, _ = run(monkeypatch, capsys, *words, "--results", tmp_path, "--json")
    assert status == 0
    made = json.loads(out)
    assert json.loads((tmp_path / "tableD1.json").read_text()) == made
    assert {path.name for path in tmp_path.iterdir()} == {
        f"tableD1.{ending}" for ending in ("md", "csv", "tex", "json")
    }
    text = (tmp_path / "tableD1.md").read_text()
    assert "| BoolQ | boolq |" in text
    assert "| – / – / 3,270 |" in text
    assert "*items*" not in text
    assert r"\begin{table*}" in (tmp_path / "tableD1.tex").read_text()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("D1", ["--size", "full"]),
        ("D1", ["--rows", "all"]),
        ("D1", ["--seeds", "0"]),
        ("D1", ["--methods", "lora"]),
        ("D1", ["--model", "local:x"]),
        ("D1", ["--set", "items=2"]),
        ("D1", ["--dry-run"]),
        ("D1", ["--fresh"]),
        ("H", ["--source", "hub"]),
        ("H", ["--published"]),
        ("H", ["--models", "llama2-7b"]),
    ],
)
def test_options_that_mean_nothing_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    words: list[str],
) -> None:
    status, out, err = run(monkeypatch, capsys, "table", name, *words, "--results", tmp_path / "r")
    assert (status, out) == (2, "")
    assert f"table{name} takes no {words[0]}, only --profile" in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "item=2"], "Did you mean 'items'"),
        (["--set", "items=0"], "items must be a positive integer, not 0"),
        (["--set", "tasks=boolk"], "Did you mean 'boolq'"),
        (["--methods", "loar"], "Did you mean 'lora'"),
    ],
)
def test_wrong_words_for_samples_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    said: str,
) -> None:
    status, _, err = run(monkeypatch, capsys, "table", "H", *words, "--results", tmp_path)
    assert status == 2
    assert said in err


def test_without_a_finished_run_it_says_what_makes_some(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, out, err = run(monkeypatch, capsys, "table", "H", "--results", tmp_path)
    assert (status, out) == (1, "")
    assert "`quanta-bench table 3` makes some" in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
