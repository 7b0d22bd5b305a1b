"""Which rows make which split, and what is said of rows that do not fit."""

from __future__ import annotations

from typing import Any

import pytest

from quanta_bench.task import HubRows, JsonRows, LineRows, SavedRows, SourceError
from tasks.arc import ArcEasy
from tasks.boolq import BoolQ
from tasks.piqa import PIQA
from tasks.running_text import RunningText
from tasks.wikitext import WikiText2

SAVED = SavedRows("piqa/plain_text/validation")


def piqa_rows(count: int, goal: str = "goal") -> list[dict[str, Any]]:
    return [{"goal": f"{goal} {n}", "sol1": "a", "sol2": "b", "label": n % 2} for n in range(count)]


def arc_rows(*questions: str) -> list[dict[str, Any]]:
    choices = {"text": ["a", "b"], "label": ["A", "B"]}
    return [{"question": text, "choices": choices, "answerKey": "B"} for text in questions]


def test_hub_rows_take_the_validation_set_as_test_where_labels_are_hidden(stub: Any) -> None:
    source = stub(
        "hub",
        {
            HubRows("baber/piqa", None, "train"): piqa_rows(50),
            HubRows("baber/piqa", None, "validation"): piqa_rows(7, "other"),
        },
    )
    found = {split: PIQA().examples(source, split) for split in ("train", "validation", "test")}
    assert len(found["train"]) + len(found["validation"]) == 50
    assert len(found["validation"]) > 0
    assert [item.id for item in found["test"]] == [f"piqa/test/{n}" for n in range(7)]


def test_hub_rows_of_arc_come_as_published(stub: Any) -> None:
    questions = {"train": ("a", "b", "c"), "validation": ("d",), "test": ("a",)}
    source = stub(
        "hub",
        {
            HubRows("allenai/ai2_arc", "ARC-Easy", split): arc_rows(*texts)
            for split, texts in questions.items()
        },
    )
    for split, texts in questions.items():
        found = ArcEasy().examples(source, split)  # type: ignore[arg-type]
        assert tuple(item.fields["question"] for item in found) == texts


def test_splits_depend_on_the_group_alone(stub: Any) -> None:
    rows = piqa_rows(40)
    once = PIQA().examples(stub("embedded", {SAVED: rows}), "test")
    again = PIQA().examples(stub("embedded", {SAVED: rows[::-1]}), "test")
    goals = [item.fields["question"] for item in once]
    assert goals == [item.fields["question"] for item in again][::-1]


@pytest.mark.parametrize("key", ["goal", "sol1", "sol2", "label"])
def test_a_null_is_no_text(stub: Any, key: str) -> None:
    rows = [*piqa_rows(2), {**piqa_rows(1)[0], key: None}]
    with pytest.raises(SourceError, match=r"Row 3 of piqa/.*is not a PIQA row"):
        PIQA().examples(stub("embedded", {SAVED: rows}), "train")


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("local", {"text": None}),
        ("local", {"text": 5}),
        ("embedded", {"query": None, "answers_text": ["x"]}),
        ("embedded", {"query": "x", "answers_text": [None]}),
        ("embedded", {"query": "x", "answers_text": []}),
    ],
)
def test_a_passage_is_text(stub: Any, kind: str, row: dict[str, Any]) -> None:
    source = stub(kind, {RunningText.locations[kind]: [row]})
    with pytest.raises(SourceError, match=r"Row 1 of lambada/.*is not a Text row"):
        RunningText().examples(source, "test")


def test_a_line_is_text(stub: Any) -> None:
    where = LineRows("wikitext-2/test.txt")
    for row in ({"text": None}, {"line": "a"}):
        with pytest.raises(SourceError, match="no line of text"):
            WikiText2().examples(stub("local", {where: [row]}), "test")


def test_a_row_that_does_not_fit_is_named(stub: Any) -> None:
    rows = [*piqa_rows(2), {"goal": "x", "sol1": "a"}]
    with pytest.raises(SourceError, match=r"Row 3 of piqa/.*PIQA row.*sol2"):
        PIQA().examples(stub("embedded", {SAVED: rows}), "train")
    bad = [{"instruction": "Do it", "input": "", "output": "", "answer": "solution1"}]
    source = stub("local", {JsonRows("dataset/piqa/train.json"): bad})
    with pytest.raises(SourceError, match="does not open with"):
        PIQA().examples(source, "train")


def test_boolq_with_passage_says_that_a_checkout_has_none(stub: Any) -> None:
    with pytest.raises(SourceError, match="no passage"):
        BoolQ("with_passage").examples(stub("local", {}), "test")
    assert BoolQ("with_passage").reference == "boolq:with_passage"
    assert BoolQ().reference == "boolq"
