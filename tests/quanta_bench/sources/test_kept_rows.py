"""Rows that are read once give the items, and the fingerprints, of rows that are read each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from paths import STUDY

from quanta_bench.data.pools import Pools
from quanta_bench.sources.rows import KeptRows, LocalData
from quanta_bench.task import JsonRows, SourceError

LORA = "lora-775ce3bd9930-025a1254eae3"
"""The LoRA row of the committed Table 3, seed 0."""
SPLITS = ("train", "validation", "test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "ab":
        (tmp_path / f"{name}.json").write_text(json.dumps([{"text": name}]))
    return tmp_path


def test_a_file_is_read_once_and_noted_for_each_reader(folder: Path) -> None:
    kept = KeptRows(LocalData(folder))
    first = kept.rows(JsonRows("a.json"))
    kept.begin()
    assert kept.read == []
    (folder / "a.json").unlink()
    assert kept.rows(JsonRows("a.json")) is first
    kept.rows(JsonRows("b.json"))
    kept.rows(JsonRows("a.json"))
    assert kept.read == [JsonRows("a.json"), JsonRows("b.json")]


def test_what_is_not_there_is_not_noted(folder: Path) -> None:
    kept = KeptRows(LocalData(folder))
    for _ in range(2):
        with pytest.raises(SourceError, match=r"no file .*c\.json"):
            kept.rows(JsonRows("c.json"))
    assert kept.read == []


@pytest.mark.parametrize("task", ["boolq", "arc_easy"])
def test_splits_read_together_are_those_read_apart(offline: None, task: str) -> None:
    together = Pools()
    for split in SPLITS:
        pool, alone = together.get(task, "embedded", split), Pools().get(task, "embedded", split)
        assert pool.examples == alone.examples
        # Training rows of ARC-e depend on its test rows, in another file; those on themselves.
        assert pool.identity == alone.identity


def test_committed_results_stand_for_what_is_read_now(offline: None) -> None:
    pools = Pools()
    result = json.loads((STUDY / "runs" / LORA / "result.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {
        name: pools.get(name.partition("/")[0], "embedded", name.partition("/")[2]).identity  # type: ignore[arg-type]
        for name in result["training"]["data"]
    }
    assert found == result["training"]["data"]


def test_a_changed_file_has_another_fingerprint(tmp_path: Path) -> None:
    file = tmp_path / "my.jsonl"
    rows = [{"prompt": f"{n}", "choices": ["a", "b"], "answer": 0} for n in range(30)]
    contents = []
    for last in (0, 1):
        rows[-1]["answer"] = last
        file.write_text("\n".join(map(json.dumps, rows)))
        contents.append(Pools().get(f"jsonl:{file}", "embedded", "train").content)
    assert contents[0].keys() == contents[1].keys() == {"user:my.jsonl"}
    assert contents[0] != contents[1]
