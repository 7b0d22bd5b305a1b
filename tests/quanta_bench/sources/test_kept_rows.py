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
    kept.start_recording()
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


def test_each_row_is_parsed_once_for_all_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.jsonl import JsonLines
    from tasks.math10k import Math10K

    def count(task: type[Any], name: str) -> list[str]:
        parsed: list[str] = []
        parse = getattr(task, name)

        def counted(self: Any, row: Any, *rest: Any) -> Any:
            parsed.append(str(row))
            return parse(self, row, *rest)

        monkeypatch.setattr(task, name, counted)
        return parsed

    parsed = count(Math10K, "example")
    (tmp_path / "ft-training_set").mkdir()
    rows = [
        {"instruction": f"{n} + 1?", "output": f"{n + 1}", "answer": f"{n + 1}"} for n in range(40)
    ]
    (tmp_path / "ft-training_set" / "math_10k.json").write_text(json.dumps(rows))
    pools = Pools()
    splits: tuple[Any, ...] = ("train", "validation")
    total = sum(len(pools.get("math10k", f"local:{tmp_path}", split).examples) for split in splits)
    assert total == len(parsed) == 40

    file = tmp_path / "my.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": f"{n}", "target": "a"}) for n in range(30)))
    parsed = count(JsonLines, "_example")
    for split in ("train", "validation", "test"):
        assert pools.get(f"jsonl:{file}", "embedded", split).examples  # type: ignore[arg-type]
    assert len(parsed) == 30


def test_rows_that_are_read_anew_are_parsed_anew(folder: Path) -> None:
    """Only a source that keeps its rows keeps what was made of them."""
    from tasks.places import parse_once

    source = LocalData(folder)
    made: list[int] = []

    def read() -> None:
        rows = source.rows(JsonRows("a.json"))
        parse_once(source, "a", rows, lambda: made.append(1) or [])  # type: ignore[func-returns-value]

    read()
    read()
    assert len(made) == 2
