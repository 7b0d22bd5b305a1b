"""DROP: the rows of four sources, the text a model sees, the splits and the scores."""

from __future__ import annotations

from typing import Any

import pytest
from paths import SHARED_DATA

from quanta_bench.plugins import find_protocol
from quanta_bench.sources.rows import parse_source
from quanta_bench.task import Example, HubRows, RequestRows, Source, SourceError, UsageError
from tasks.drop import Drop

TRAIN = HubRows("EleutherAI/drop", None, "train")
VALIDATION = HubRows("EleutherAI/drop", None, "validation")

NO_DATE = {"day": "", "month": "", "year": ""}
EMBEDDED = {
    "query_id": "x",
    "passage": "Ann ran. Bob hid.",
    "question": "Who ran? ",
    "answers": [["Ann", "Bob"], ["Ann"], ["Ann", "Bob"]],
}
PUBLISHED = {
    "section_id": "s",
    "query_id": "x",
    "passage": "Ann ran. Bob hid.",
    "question": "Who ran?",
    "answer": {"number": "", "date": NO_DATE, "spans": ["Ann", "Bob"]},
    "validated_answers": [
        {"number": "", "date": NO_DATE, "spans": ["Ann"]},
        {"number": "2", "date": NO_DATE, "spans": []},
        {"number": "", "date": {"day": "5", "month": "", "year": "1945"}, "spans": []},
        {"number": "", "date": NO_DATE, "spans": []},
    ],
}
TRANSPOSED = {
    **PUBLISHED,
    "validated_answers": {
        key: [answer[key] for answer in PUBLISHED["validated_answers"]]
        for key in ("number", "date", "spans")
    },
}
FLAT = {
    "section_id": "s",
    "query_id": "x",
    "passage": "Ann ran. Bob hid.",
    "question": "Who ran?",
    "answers_spans": {"spans": ["Ann", "Bob", "Ann"], "types": ["span"] * 3},
}


@pytest.mark.parametrize(
    ("row", "answers", "references"),
    [
        (EMBEDDED, (("Ann", "Bob"), ("Ann",)), ("Ann", "Bob")),
        (
            PUBLISHED,
            (("Ann", "Bob"), ("Ann",), ("2",), ("5 1945",)),
            ("Ann", "Bob", "2", "5 1945"),
        ),
        (
            TRANSPOSED,
            (("Ann", "Bob"), ("Ann",), ("2",), ("5 1945",)),
            ("Ann", "Bob", "2", "5 1945"),
        ),
        (FLAT, (("Ann",), ("Bob",)), ("Ann", "Bob")),
    ],
)
def test_rows_of_each_form(
    row: dict[str, Any], answers: tuple[tuple[str, ...], ...], references: tuple[str, ...]
) -> None:
    item = Drop().example(row, "drop/test/0")
    assert item.fields["answers"] == answers
    assert item.references == references
    prompt = Drop().prompt(item, "generate")
    assert prompt.context == "Passage: Ann ran. Bob hid.\nQuestion: Who ran?\nAnswer:"
    assert prompt.target == " Ann"
    assert not prompt.candidates


def test_scores_of_a_text() -> None:
    item = Drop().example(EMBEDDED, "x")
    scores = {
        " Ann": {"f1": 1, "exact": 1, "drop_f1": 1, "drop_em": 1},
        " Bob\n": {"f1": 1, "exact": 1, "drop_f1": 0.5, "drop_em": 0},
        "Ann and Bob": {"f1": 0.5, "exact": 0, "drop_f1": 0.5, "drop_em": 0},
        "": {"f1": 0, "exact": 0, "drop_f1": 0, "drop_em": 0},
    }
    for text, expected in scores.items():
        answer = Drop().judge_text(item, text)
        assert answer.scores == expected
        assert answer.prediction == (text.strip() or None)
        assert answer.gold == "Ann"
    totals = Drop().aggregate([Drop().judge_text(item, text) for text in scores])
    assert totals == {"f1": 0.625, "exact": 0.5, "drop_f1": 0.5, "drop_em": 0.25}
    assert Drop().metric == "f1"


def test_a_text_ends_at_the_line_and_targets_hold_none() -> None:
    row = {**EMBEDDED, "answers": [["two\nlines "]]}
    assert Drop().prompt(Drop().example(row, "x"), "generate").target == " two lines"
    assert Drop().stop == ("\n",)
    assert Drop().max_new_tokens == 50
    assert find_protocol("generate").chance(Drop(), [Drop().example(row, "x")]) is None


def test_published_splits(stub: Any) -> None:
    train = [{**PUBLISHED, "passage": f"passage {n // 3}"} for n in range(300)]
    source = stub("hub", {TRAIN: train, VALIDATION: [PUBLISHED] * 4})
    task = Drop()
    found = {split: task.examples(source, split) for split in ("train", "validation", "test")}
    assert len(found["train"]) + len(found["validation"]) == 300
    assert 10 < len(found["validation"]) < 60
    assert not {i.group for i in found["train"]} & {i.group for i in found["validation"]}
    assert [item.id for item in found["test"]] == [f"drop/test/{n}" for n in range(4)]


@pytest.mark.parametrize(
    "row",
    [
        {"passage": "a", "question": "b"},
        {**EMBEDDED, "answers": []},
        {**EMBEDDED, "answers": [[]]},
        {**FLAT, "answers_spans": None},
    ],
)
def test_a_row_without_answer_is_named(row: dict[str, Any], stub: Any) -> None:
    source = stub("embedded", {RequestRows("drop/bpb_5shot"): [row]})
    with pytest.raises(SourceError, match=r"Row 1 of drop/bpb_5shot.*DROP row"):
        Drop().examples(source, "train")


def test_other_words_are_refused() -> None:
    with pytest.raises(UsageError, match="generate"):
        Drop().prompt(Drop().example(EMBEDDED, "x"), "choice-text")
    with pytest.raises(UsageError, match="no argument"):
        Drop("with_passage")


def splits(source: Source) -> dict[str, list[Example]]:
    return {split: Drop().examples(source, split) for split in ("train", "validation", "test")}  # type: ignore[arg-type]


def check(found: dict[str, list[Example]]) -> None:
    items = [item for own in found.values() for item in own]
    assert len({item.id for item in items}) == len(items)
    passages = [{item.fields["passage"] for item in own} for own in found.values()]
    assert sum(map(len, passages)) == len(set().union(*passages))
    for item in items:
        prompt = Drop().prompt(item, "generate")
        assert "\n" not in prompt.target
        scores = Drop().judge_text(item, prompt.target).scores
        assert scores["f1"] == scores["exact"] == 1
        if len(item.fields["answers"][0]) == 1:
            assert scores["drop_f1"] == scores["drop_em"] == 1


def test_embedded_rows(embedded: Source) -> None:
    found = splits(embedded)
    assert {split: len(own) for split, own in found.items()} == {
        "train": 510,
        "validation": 104,
        "test": 386,
    }
    check(found)
    queries = {row["query"] for row in embedded.rows(RequestRows("drop/bpb_5shot"))}
    for item in found["test"]:
        assert Drop().prompt(item, "generate").context in queries


def test_rows_in_a_folder() -> None:
    if not (SHARED_DATA / "drop").is_dir():
        pytest.skip(f"no DROP in {SHARED_DATA}")
    found = splits(parse_source(f"local:{SHARED_DATA}"))
    assert len(found["train"]) + len(found["validation"]) == 2003
    assert len(found["test"]) == 2039
    check(found)
