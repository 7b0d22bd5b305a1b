"""`--stored`: the committed study is printed without model, data or computing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import Bench
from paths import STUDY

TABLES = {"table3": "small", "qpa": "small", "qtha": "small", "sums": "medium"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("copy") / "study"
    shutil.copytree(STUDY, copy, ignore=shutil.ignore_patterns("trainings", "unfinished"))
    return copy


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
def test_every_committed_table_is_printed(name: str, study: Path, bench: Bench) -> None:
    before = sorted((study / "runs").iterdir())
    said = bench("table", name, "--size", TABLES[name], "--stored", "--results", study)
    assert said.status == 0
    assert "Base model" in said.out
    assert "LoRA" in said.out
    assert sorted((study / "runs").iterdir()) == before


def test_an_empty_folder_and_contradictory_options_are_refused(
    tmp_path: Path, bench: Bench
) -> None:
    said = bench("table", "3", "--stored", "--results", tmp_path / "none")
    assert said.status == 2
    assert "No run of table3, size small, is stored in" in said.err
    said = bench("table", "3", "--stored", "--fresh", "--results", tmp_path)
    assert said.status == 2
    assert "take one" in said.err


def test_a_size_that_is_stored_is_named_where_another_was_asked_for(
    study: Path, bench: Bench
) -> None:
    said = bench("figure", "4", "--stored", "--results", study)
    assert said.status == 2
    assert "there are runs of --size full." in said.both
