"""The eight tasks' training rows in one file: who reads each, and which 400 validate."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from quanta_bench.plugins import find_protocol
from quanta_bench.task import HubRows, JsonRows, Source, SourceError
from tasks.commonsense170k import Commonsense170K, validation_groups

FILE = JsonRows("ft-training_set/commonsense_170k.json")
READER = {
    "boolq": "boolq",
    "piqa": "piqa",
    "social_i_qa": "siqa",
    "hellaswag": "hellaswag",
    "winogrande": "winogrande",
    "ARC-Easy": "arc_easy",
    "openbookqa": "arc_easy",
}


@pytest.fixture(scope="module")
def rows(checkout: Source) -> dict[str, list[dict[str, Any]]]:
    return {name: checkout.rows(JsonRows(f"dataset/{name}/train.json")) for name in READER}


def test_each_row_finds_its_task(rows: dict[str, list[dict[str, Any]]], stub: Any) -> None:
    task = Commonsense170K()
    for name, own in rows.items():
        items = task.examples(stub("local", {FILE: own}), "train")
        found = Counter(item.fields["task"] for item in items)
        # A few ARC questions have three choices after a situation, as SIQA's do.
        strays = 5 if name == "ARC-Easy" else 0
        assert len(items) - found[READER[name]] <= strays


def test_validation_is_400_rows_and_keeps_twins_together(
    rows: dict[str, list[dict[str, Any]]], stub: Any
) -> None:
    task = Commonsense170K()
    everything = [row for own in rows.values() for row in own]
    source = stub("local", {FILE: everything})
    train, validation = (task.examples(source, split) for split in ("train", "validation"))
    assert len(validation) == 400
    assert len(train) == len(everything) - 400
    assert not {item.group for item in train} & {item.group for item in validation}
    assert not {item.id for item in train} & {item.id for item in validation}
    originals = {row["instruction"]: row["answer"] for row in everything}
    for item in validation:
        prompt = task.prompt(item, "choice-label")
        assert prompt.context.removesuffix("\nAnswer:") in originals
        assert task.prompt(item, "choice-text").target
        right = task.prompt(item, "generate").target
        assert task.judge_text(item, right).scores == {"accuracy": 1.0}
    assert find_protocol("generate").chance(task, validation) is None
    assert 0.2 < (find_protocol("choice-text").chance(task, validation) or 0) < 0.6


def test_validation_groups_fill_the_room_exactly() -> None:
    groups = [f"pair {n // 2}" for n in range(190)] + [f"single {n}" for n in range(10)]
    chosen = validation_groups(groups)
    assert sum(group in chosen for group in groups) == 10
    assert chosen == validation_groups(groups[::-1])
    assert validation_groups(["one"]) == set()


@pytest.mark.parametrize(
    ("kind", "split", "message"),
    [
        ("local", "test", "no test rows; test on boolq"),
        ("embedded", "train", "not in the embedded data. Use 'local:DIR'"),
    ],
)
def test_what_it_cannot_give(kind: str, split: Any, message: str, stub: Any) -> None:
    with pytest.raises(SourceError, match=message):
        Commonsense170K().examples(stub(kind, {}), split)


def test_a_stray_row_is_named(stub: Any) -> None:
    stray = {"instruction": "Sing.", "input": "", "output": "la", "answer": "la"}
    source = stub("hub", {HubRows("zwhe99/commonsense_170k", None, "train"): [stray]})
    with pytest.raises(SourceError, match="Row 1 of commonsense_170k"):
        Commonsense170K().examples(source, "train")
