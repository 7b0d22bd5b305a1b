"""Instructions are written and read back without loss, whatever the text."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.boolq import BoolQ
from tasks.llm_adapters import Layout
from tasks.piqa import PIQA
from tasks.siqa import SIQA
from tasks.winogrande import WinoGrande

LAYOUTS = st.sampled_from([PIQA.layout, SIQA.layout, WinoGrande.layout])
CHOICES = st.lists(st.text(), min_size=1, max_size=5).map(tuple)


@given(LAYOUTS, st.text(), CHOICES)
def test_fields_come_back(layout: Layout, question: str, choices: tuple[str, ...]) -> None:
    # Texts that themselves hold a marker are ambiguous; the next test covers them.
    marks = ("Answer", "Solution", "Option")
    assume(not any(mark in text for mark in marks for text in (question, *choices)))
    assert layout.read(layout.write(question, choices)) == (question, choices)


MARKS = st.sampled_from(["Answer1: ", " Answer2: ", "\n\nAnswer1: ", "\n\n", " ", "x", "Answer"])
NASTY = st.lists(MARKS, max_size=6).map("".join)


@given(NASTY, st.lists(NASTY, min_size=1, max_size=5).map(tuple))
def test_ambiguous_text_is_never_lost(question: str, choices: tuple[str, ...]) -> None:
    text = SIQA.layout.write(question, choices)
    assert SIQA.layout.write(*SIQA.layout.read(text)) == text


@given(st.text())
def test_boolq_comes_back(question: str) -> None:
    task = BoolQ()
    fields = {"question": question, "choices": ("no", "yes")}
    assert task.parse(task.instruction(fields)) == fields


@given(st.text(min_size=1), st.sampled_from(["What", "How", "Why"]))
def test_siqa_joins_what_it_took_apart(context: str, word: str) -> None:
    assume(context.strip() == context)
    statement = f"{context} {word} now?"
    assert SIQA().statement(SIQA().fields(statement)) == statement


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("What?\n\nAnswer1: a\n\nAnswer format: answer1", "does not open"),
        (f"{SIQA.layout.opening}What?", "the answer format is"),
        (f"{SIQA.layout.opening}Q\n\nAnswer1: a\n\nAnswer format: answer2", "the answer format is"),
        (
            f"{SIQA.layout.opening}Q\n\nAnswer1: a\n\nAnswer format: answer1/answer2",
            "'Answer2' is missing",
        ),
    ],
)
def test_other_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SIQA.layout.read(text)
