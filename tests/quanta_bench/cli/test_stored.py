"""`--stored`: the committed study is printed without model, data or computing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from paths import STUDY

from quanta_bench.cli import main

TABLES = {"table3": "small", "qpa": "small", "qtha": "small", "sums": "medium"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("copy") / "study"
    shutil.copytree(STUDY, copy, ignore=shutil.ignore_patterns("trainings", "unfinished"))
    return copy


def call(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["quanta-bench", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and a refusal of whatever would fill it or compute."""
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("fetched or computed")

    monkeypatch.setattr("quanta_bench.cli.console.fetch_for", refuse)
    monkeypatch.setattr("quanta_bench.runs.sweep.sweep", refuse)


@pytest.mark.parametrize("name", TABLES)
def test_every_committed_table_is_printed(
    name: str, study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted((study / "runs").iterdir())
    words = ("table", name, "--size", TABLES[name], "--stored", "--results", study)
    assert call(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    assert "Base model" in out
    assert "LoRA" in out
    assert sorted((study / "runs").iterdir()) == before


def test_an_empty_folder_and_contradictory_options_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "table", "3", "--stored", "--results", tmp_path / "none") == 2
    assert "No run of table3, size small, is stored in" in capsys.readouterr().err
    assert call(monkeypatch, "table", "3", "--stored", "--fresh", "--results", tmp_path) == 2
    assert "take one" in capsys.readouterr().err


def test_a_size_that_is_stored_is_named_where_another_was_asked_for(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "figure", "4", "--stored", "--results", study) == 2
    assert "there are runs of --size full." in " ".join(capsys.readouterr().err.split())
