"""The eight tasks on their real rows: sizes, splits without twins, LLM-Adapters' instructions."""

from __future__ import annotations

import itertools
import re
import sys
from collections import defaultdict
from collections.abc import Callable

import pytest

from quanta_bench.task import Example, JsonRows, Source
from tasks.arc import ArcChallenge, ArcEasy
from tasks.boolq import BoolQ
from tasks.commonsense import CommonsenseTask
from tasks.hellaswag import HellaSwag
from tasks.openbookqa import OpenBookQA
from tasks.piqa import PIQA
from tasks.places import letters_of
from tasks.siqa import SIQA
from tasks.winogrande import WinoGrande

SPLITS = ("train", "validation", "test")
SIZES: dict[type[CommonsenseTask], tuple[int, int, int]] = {
    BoolQ: (1641, 316, 1313),
    PIQA: (953, 166, 719),
    SIQA: (1002, 189, 763),
    HellaSwag: (5042, 1005, 3995),
    WinoGrande: (584, 133, 550),
    ArcEasy: (433, 137, 2376),
    ArcChallenge: (226, 71, 1172),
    OpenBookQA: (371, 128, 500),
}
ALL = list(SIZES)
FOLDERS = {
    BoolQ: "boolq",
    PIQA: "piqa",
    SIQA: "social_i_qa",
    HellaSwag: "hellaswag",
    WinoGrande: "winogrande",
    ArcEasy: "ARC-Easy",
    OpenBookQA: "openbookqa",
}
FILES = [(task, name) for task in FOLDERS for name in ("train", "test")] + [
    (HellaSwag, "validation_extra")
]


def letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text).casefold()


def splits(task: type[CommonsenseTask], source: Source) -> dict[str, list[Example]]:
    return {split: task().examples(source, split) for split in SPLITS}


@pytest.mark.parametrize("task", ALL)
def test_sizes_of_the_embedded_splits(task: type[CommonsenseTask], embedded: Source) -> None:
    found = splits(task, embedded)
    assert tuple(len(found[split]) for split in SPLITS) == SIZES[task]


# What makes two items near-duplicates, told from their fields alone and without the groups' help.
ALIKE: list[tuple[type[CommonsenseTask], Callable[[Example], str]]] = [
    (BoolQ, lambda item: item.fields["passage"]),
    (BoolQ, lambda item: letters(item.fields["passage"])),
    (BoolQ, lambda item: letters(item.fields["question"])),
    (PIQA, lambda item: letters(item.fields["question"])),
    (SIQA, lambda item: letters(item.fields["context"])),
    (HellaSwag, lambda item: item.fields["source_id"]),
    (HellaSwag, lambda item: letters(item.fields["ctx_a"] + item.fields["ctx_b"])),
    (WinoGrande, lambda item: "/".join(sorted(map(letters, item.fields["choices"])))),
    (WinoGrande, lambda item: letters(item.fields["question"])),
    (ArcEasy, lambda item: letters(item.fields["question"])),
    (ArcChallenge, lambda item: letters(item.fields["question"])),
    (OpenBookQA, lambda item: letters(item.fields["question"])),
]


@pytest.mark.parametrize(("task", "alike"), ALIKE)
def test_twins_never_straddle_splits(
    task: type[CommonsenseTask], alike: Callable[[Example], str], embedded: Source
) -> None:
    found = splits(task, embedded)
    keys = {split: {alike(item) for item in items} for split, items in found.items()}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not keys[one] & keys[other]


def test_the_near_twins_that_a_split_by_row_would_tear_apart(embedded: Source) -> None:
    items = [item for found in splits(WinoGrande, embedded).values() for item in found]
    groups = defaultdict(list)
    for item in items:
        groups[item.group].append(item)
    assert sum(len(group) for group in groups.values() if len(group) > 1) > 500


@pytest.mark.parametrize(("task", "name"), FILES)
def test_instructions_are_read_without_loss(
    task: type[CommonsenseTask], name: str, checkout: Source
) -> None:
    reader = task()
    rows = checkout.rows(JsonRows(f"dataset/{FOLDERS[task]}/{name}.json"))
    for row in rows:
        fields = reader.parse(row["instruction"])
        assert reader.instruction(fields) == row["instruction"]
        assert row["output"] == f"the correct answer is {row['answer']}"
        assert row["answer"] in reader.labels(fields)


@pytest.mark.parametrize("task", [BoolQ, PIQA, SIQA, WinoGrande, ArcEasy, OpenBookQA])
def test_published_rows_make_the_instructions_of_llm_adapters(
    task: type[CommonsenseTask], embedded: Source, checkout: Source
) -> None:
    reader, place = task(), task.places.embedded
    rows = embedded.rows(place.test or place.pool)
    theirs = checkout.rows(JsonRows(f"dataset/{FOLDERS[task]}/test.json"))
    assert len(rows) == len(theirs)
    for row, their in zip(rows, theirs, strict=True):
        item = reader.example(row, "x")
        assert reader.instruction(item.fields) == their["instruction"]
        assert reader.labels(item.fields)[item.gold or 0] == their["answer"]


def test_published_hellaswag_rows_hold_the_instructions_of_llm_adapters(
    embedded: Source, checkout: Source
) -> None:
    reader = HellaSwag()
    items = [reader.example(row, "x") for row in embedded.rows(HellaSwag.places.embedded.pool)]
    ours = {reader.instruction(item.fields): item for item in items}
    for row in checkout.rows(JsonRows("dataset/hellaswag/test.json")):
        assert (
            reader.labels({"choices": range(4)})[ours[row["instruction"]].gold or 0]
            == (row["answer"])
        )


@pytest.mark.parametrize("task", [SIQA, HellaSwag])
def test_an_instruction_gives_back_the_published_fields(
    task: type[CommonsenseTask], embedded: Source
) -> None:
    reader = task()
    for row in embedded.rows(task.places.embedded.pool):
        fields = dict(reader.example(row, "x").fields)
        fields.pop("source_id", None)
        assert reader.parse(reader.instruction(fields)) == fields


@pytest.mark.parametrize("task", FOLDERS)
def test_a_checkout_has_all_splits(task: type[CommonsenseTask], checkout: Source) -> None:
    found = splits(task, checkout)
    assert all(found.values())
    groups = [{item.group for item in found[split]} for split in ("train", "validation")]
    assert not groups[0] & groups[1]
    for item in found["validation"]:
        for protocol in task.protocols:
            assert task().prompt(item, protocol).target


def test_hellaswag_reads_as_the_usual_preprocessing_does(embedded: Source) -> None:
    task = HellaSwag()
    for item in task.examples(embedded, "test"):
        prompt = task.prompt(item, "choice-text")
        for text in (prompt.context, *prompt.candidates):
            assert "[header]" not in text
            assert "[title]" not in text
            assert "[step]" not in text
            assert "  " not in text
            assert text == text.rstrip()


def test_the_letters_of_a_text_are_what_isalnum_says() -> None:
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    assert letters_of("".join(every)) == "".join(char for char in every if char.isalnum())
