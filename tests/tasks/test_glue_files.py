"""GLUE's tasks on real rows: counts, splits without twins, and one content from every source."""

from __future__ import annotations

from typing import Any

import pytest
from paths import SHARED_DATA

from quanta_bench.sources.rows import parse_source
from quanta_bench.task import Example
from tasks.glue import MRPC, RTE, SST2, STSB, CoLA, GlueTask

GLUE = SHARED_DATA / "glue"
SPLITS = ("train", "validation", "test")
SIZES: dict[type[GlueTask], tuple[int, int, int]] = {
    SST2: (428, 78, 366),
    MRPC: (204, 32, 172),
    RTE: (146, 27, 104),
}
FILES: dict[type[GlueTask], tuple[int, int, dict[int, int]]] = {
    # Rows that are left, test rows and how many of them have each label; the last two by the
    # data sets' own descriptions.
    SST2: (40000 - 3, 872, {0: 428, 1: 444}),
    MRPC: (3668 - 24, 408, {0: 129, 1: 279}),
    CoLA: (8551 - 19, 1043, {0: 322, 1: 721}),
    RTE: (2490 - 31, 277, {0: 146, 1: 131}),
    STSB: (5749 - 174, 1500, {}),
}


@pytest.fixture(scope="module")
def files() -> Any:
    if not GLUE.is_dir():
        pytest.skip(f"no files of GLUE at {GLUE}")
    return parse_source(f"local:{GLUE}")


def letters(item: Example) -> frozenset[str]:
    """An item's sentences, whatever their order, case, spaces and marks."""
    return frozenset(
        "".join(char for char in text.casefold() if char.isalnum()) or text
        for text in item.fields["sentences"]
    )


def check_splits(task: GlueTask, source: Any) -> dict[str, list[Example]]:
    found = {split: task.examples(source, split) for split in SPLITS}  # type: ignore[arg-type]
    ids = [item.id for items in found.values() for item in items]
    assert len(ids) == len(set(ids))
    for key in (letters, lambda item: item.group):
        seen: set[Any] = set()
        for items in found.values():
            keys = {key(item) for item in items}
            assert not keys & seen
            seen |= keys
    return found


@pytest.mark.parametrize("task", SIZES)
def test_embedded_rows_fall_into_splits_of_nothing_in_common(
    task: type[GlueTask], embedded: Any
) -> None:
    found = check_splits(task(), embedded)
    assert tuple(len(found[split]) for split in SPLITS) == SIZES[task]


@pytest.mark.parametrize("task", FILES)
def test_glues_own_files_fall_into_splits_of_nothing_in_common(
    task: type[GlueTask], files: Any
) -> None:
    found = check_splits(task(), files)
    kept, tested, labels = FILES[task]
    assert len(found["train"]) + len(found["validation"]) == kept
    assert 0.08 < len(found["validation"]) / kept < 0.12
    gold = [item.gold for item in found["test"]]
    assert len(gold) == tested
    assert all(gold.count(label) == count for label, count in labels.items())


@pytest.mark.parametrize("task", [SST2, RTE])
def test_the_files_hold_the_rows_of_the_hub(
    task: type[GlueTask], files: Any, embedded: Any
) -> None:
    place = task.places["embedded"].pool
    ours = [task().example(row, "x") for row in embedded.rows(place)]
    theirs = task().examples(files, "test")
    assert [(item.fields, item.gold) for item in ours] == [
        (item.fields, item.gold) for item in theirs
    ]


def test_mrpc_differs_in_the_spaces_of_its_sentences_alone(files: Any, embedded: Any) -> None:
    ours = [MRPC().example(row, "x") for row in embedded.rows(MRPC.places["embedded"].pool)]
    theirs = MRPC().examples(files, "test")
    key = lambda item: (sorted(letters(item)), item.gold)  # noqa: E731
    assert sorted(map(key, ours)) == sorted(map(key, theirs))


def test_scores_of_stsb_lie_on_its_scale(files: Any) -> None:
    scores = [item.fields["score"] for item in STSB().examples(files, "test")]
    assert (min(scores), max(scores)) == (0.0, 5.0)
    assert 2 < sum(scores) / len(scores) < 3
