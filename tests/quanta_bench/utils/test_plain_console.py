"""Messages on a narrow terminal: lines break between words, and a path can be copied."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Group

from quanta_bench.utils.plain_console import PlainConsole, whole_words

PATH = "/somewhere/" + "a-folder-with-a-long-name/" * 4 + "table.md"


def printed(*objects: object, width: int = 40) -> list[str]:
    stream = StringIO()
    PlainConsole(file=stream, width=width).print(*objects)
    return stream.getvalue().splitlines()


def test_a_path_stays_whole_and_the_words_around_it_fit() -> None:
    words = "words enough for more than a line of this width"
    lines = printed(f"{words}: {PATH}, {PATH}; {words}")
    assert f"{PATH}," in lines
    assert f"{PATH};" in lines
    others = [line for line in lines if PATH not in line]
    assert len(others) >= 3
    assert max(map(len, others)) <= 40
    assert " ".join(lines).split() == f"{words}: {PATH}, {PATH}; {words}".split()


def test_shorter_words_are_wrapped_by_rich() -> None:
    lines = printed("four words in here " * 10)
    assert max(map(len, lines)) <= 40
    assert " ".join(" ".join(lines).split()) == "four words in here " * 9 + "four words in here"


@pytest.mark.parametrize("text", ["LoRA (target_modules=[q_proj, v_proj])", "a [/x]", ":smile:"])
def test_brackets_and_colons_are_text(text: str) -> None:
    assert printed(text, Group(text)) == [text, text]


@pytest.mark.parametrize("text", ["", "one", "one\n\ntwo", "  indented", f"{PATH}\nshort"])
def test_what_fits_is_left_as_it_is(text: str) -> None:
    assert whole_words(text, 40) == text
