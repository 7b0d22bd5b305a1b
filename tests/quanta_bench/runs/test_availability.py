"""What a source lacks is a dash in a table; what it has and cannot be read stops it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import run_here

from quanta_bench.data.pools import Pools
from quanta_bench.errors import MissingDataError, SourceError
from quanta_bench.runs.availability import without_absent
from quanta_bench.runs.identity import PlannedRow
from quanta_bench.sources.names import hub_failure
from quanta_bench.suites.grid import GridRow, grid
from quanta_bench.suites.schema import Suite

SUITE = {
    "name": "t",
    "tasks": ["boolq", "piqa"],
    "profiles": {"embedded": {"rows": ["none", "lora"], "trained": "apart"}},
}


@pytest.fixture
def folder(llm_adapters: Path, tmp_path: Path) -> Path:
    """A checkout of one's own, to be spoilt."""
    return Path(shutil.copytree(llm_adapters, tmp_path / "data"))


def rows(folder: Path) -> list[GridRow]:
    source = f"local:{folder}"
    profile: dict[str, Any] = {
        **SUITE["profiles"]["embedded"],  # type: ignore[index]
        "training": {"source": source},
        "evaluation": {"source": source},
    }
    made = Suite.model_validate({**SUITE, "profiles": {"embedded": profile}})
    return available(made)


def available(made: Suite) -> list[GridRow]:
    planned = [PlannedRow.of(row) for row in grid(made, "embedded")]
    return [row.row for row in without_absent(planned, Pools())]


def without_answer(file: Path) -> None:
    content = json.loads(file.read_text())
    del content[4]["answer"]
    file.write_text(json.dumps(content))


def half(file: Path) -> None:
    content = json.loads(file.read_text())
    lines = [json.dumps(row) for row in content]
    file.write_text("\n".join([*lines[:4], lines[4][:-9]]))


def of_lists(file: Path) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps([*content[:4], list(content[4])]))


def latin(file: Path) -> None:
    file.write_bytes(b'[{"instruction": "caf\xe9"}]')


def test_a_file_that_is_not_there_is_a_column_left_out(folder: Path) -> None:
    (folder / "dataset/piqa/test.json").unlink()
    for row in rows(folder):
        assert {task for _, e in row.jobs for task in e.tasks} == {"boolq"}
        assert "There is no file" in row.absent["piqa"]
    # What is scored alone needs nothing to train on.
    shutil.copy(folder / "dataset/piqa/train.json", folder / "dataset/piqa/test.json")
    (folder / "dataset/piqa/train.json").unlink()
    base, lora = rows(folder)
    assert (set(base.absent), set(lora.absent)) == (set(), {"piqa"})


def test_test_items_that_are_trained_on_elsewhere_are_a_column_left_out(
    folder: Path, tmp_path: Path
) -> None:
    """Two sources may split one data set otherwise; within one, the splits are apart."""
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    trained = json.loads((folder / "dataset/piqa/train.json").read_text())
    (other / "dataset/piqa/test.json").write_text(json.dumps(trained[:3]))
    profile = {
        "rows": ["none", "lora"],
        "training": {"source": f"local:{folder}"},
        "evaluation": {"source": f"local:{other}"},
    }
    made = Suite.model_validate({**SUITE, "profiles": {"embedded": profile}})
    base, lora = available(made)
    assert not base.absent
    assert set(lora.absent) == {"piqa"}
    assert "3 of the 3 test items of piqa" in lora.absent["piqa"]
    assert [e.tasks for _, e in lora.jobs] == [("boolq",)]
    assert [set(t.tasks) for t, _ in lora.jobs] == [{"boolq", "piqa"}]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_answer, r"Row 5 of dataset/piqa/test\.json is not a PIQA row: .*answer"),
        (half, r"piqa/test\.json.*line 5"),
        (of_lists, r"piqa/test\.json: row 5 is a list"),
        (latin, r"piqa/test\.json cannot be read"),
    ],
)
def test_a_row_that_cannot_be_read_stops_and_is_named(
    folder: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(folder / "dataset/piqa/test.json")
    with pytest.raises(SourceError, match=words) as raised:
        rows(folder)
    assert not isinstance(raised.value, MissingDataError)


def test_the_command_says_it_in_one_sentence_and_fails(
    folder: Path,
    tmp_path: Path,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_answer(folder / "dataset/piqa/test.json")
    file = tmp_path / "t.yaml"
    file.write_text(json.dumps(SUITE))
    words = ["table", file, "--source", f"local:{folder}", "--results", tmp_path / "r"]
    said = run_here(monkeypatch, capsys, *words, "--model", f"local:{tiny_model}")
    assert said.status == 1
    assert said.both.count("Row 5 of dataset/piqa/test.json") == 1
    assert "Traceback" not in said.both
    assert not list((tmp_path / "r").glob("runs/*"))


def test_a_hub_that_fails_is_no_dash_but_one_that_is_off_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert type(hub_failure("It", OSError("no route"))) is SourceError
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert type(hub_failure("It", OSError("off"))) is MissingDataError
