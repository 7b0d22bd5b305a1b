"""WikiText-2: which lines make an article, and that no text is lost on the way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import SHARED_DATA

from quanta_bench.sources.rows import parse_source
from quanta_bench.task import HubRows, LineRows, Prompt, SourceError
from tasks.wikitext import WikiText2, articles

LINES = [
    "",
    " = Ann Lee = ",
    "",
    " Ann was <unk> . ",
    " = not a title ",
    " = k = 1 = ",
    " The formula stands in a text . ",
    "",
    " = = Life = = ",
    "",
    " She left . ",
    "",
    " = Bob = ",
    "",
    " Bob stayed . ",
    "",
]
ANN = (
    " = Ann Lee = \n\n Ann was <unk> . \n = not a title \n = k = 1 = \n"
    " The formula stands in a text . \n\n = = Life = = \n\n She left . "
)
BOB = " = Bob = \n\n Bob stayed . "


def test_an_article_begins_at_a_title_between_blank_lines() -> None:
    assert list(articles(LINES)) == [ANN, BOB]


def test_text_before_the_first_title_and_a_title_at_the_end_are_kept() -> None:
    assert list(articles(["end of another . ", "", " = Bob = "])) == [
        "end of another . ",
        " = Bob = ",
    ]
    assert list(articles([])) == []


PIECES = st.sampled_from(["", " ", " = A = ", " = = B = = ", " text . ", " = C = D = ", "="])


@given(st.lists(PIECES, max_size=20))
def test_no_line_is_lost_and_none_stands_twice(lines: list[str]) -> None:
    kept = [line for text in articles(lines) for line in text.split("\n") if line]
    assert kept == [line for line in lines if line.strip()]


def test_the_hub_and_a_folder_give_the_same_text(stub: Any) -> None:
    hub = HubRows("Salesforce/wikitext", "wikitext-2-raw-v1", "validation")
    rows = {
        "hub": {hub: [{"text": f"{line}\n" if line else ""} for line in LINES]},
        "local": {LineRows("wikitext-2/valid.txt"): [{"text": line or " "} for line in LINES]},
    }
    task = WikiText2()
    found = [task.examples(stub(kind, rows[kind]), "validation") for kind in rows]
    assert found[0] == found[1]
    assert [item.fields["text"] for item in found[0]] == [ANN, BOB]
    assert [item.id for item in found[0]] == ["wikitext2/validation/0", "wikitext2/validation/1"]
    assert [task.words(item) for item in found[0]] == [32, 6]
    assert task.prompt(found[0][1], "choice-text") == Prompt("", target=BOB)


@pytest.mark.parametrize(("split", "file"), [("train", "train"), ("validation", "valid")])
def test_embedded_data_point_elsewhere(split: Any, file: str, stub: Any) -> None:
    with pytest.raises(SourceError, match=rf"wikitext-2/{file}\.txt in DIR.*running_text"):
        WikiText2().examples(stub("embedded", {}), split)


@pytest.mark.parametrize(("split", "words"), [("validation", 213886), ("test", 241211)])
def test_the_published_files_hold_sixty_articles(split: Any, words: int) -> None:
    """Numbers of articles and words as their authors state them; titles in formulas apart."""
    if not (SHARED_DATA / "wikitext-2").is_dir():
        pytest.skip(f"no WikiText-2 at {SHARED_DATA}")
    source = parse_source(f"local:{SHARED_DATA}")
    task = WikiText2()
    found = task.examples(source, split)
    assert len(found) == 60
    assert sum(task.words(item) for item in found) == words
    assert len({item.group for item in found}) == 60
    assert min(task.words(item) for item in found) > 100


def test_no_article_is_in_two_splits() -> None:
    if not (SHARED_DATA / "wikitext-2").is_dir():
        pytest.skip(f"no WikiText-2 at {SHARED_DATA}")
    source = parse_source(f"local:{SHARED_DATA}")
    texts = [
        {item.fields["text"] for item in WikiText2().examples(source, split)}
        for split in ("validation", "test")  # the training file is not there
    ]
    assert len(texts[0]) == len(texts[1]) == 60
    assert not texts[0] & texts[1]
