"""Tables in narrow terminals: what is broken, what is shortened, what is cut into blocks."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from quanta_bench.utils.fitted_table import FittedTable
from quanta_bench.utils.plain_console import PlainConsole


def lines(table: FittedTable, width: int) -> list[str]:
    console = PlainConsole(width=width)
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()


@pytest.fixture
def table() -> FittedTable:
    made = FittedTable("A title of some words", shortened="shortened")
    made.add_column("Method", label=True)
    made.add_column("Trained", right=True)
    for task in ("BoolQ", "PIQA", "SIQA"):
        made.add_column(f"{task}\nn=25", right=True)
    for name in ("Full fine-tuning", "QuanTA 6-6-4-4"):
        made.add_row(name, ("134,515,008", "135M"), *[("60.0 ± 11.3", "60.0±11.3", "60.0")] * 3)
    return made


WORDS = {"fine-tuning", "6-6-4-4", "QuanTA", "Full"}


@pytest.mark.parametrize("width", range(24, 90))
def test_no_line_is_too_long_and_no_word_is_broken(table: FittedTable, width: int) -> None:
    drawn = lines(table, width)
    assert max(map(cell_len, drawn)) <= width
    words = {word for line in drawn for word in line.split()}
    assert words >= WORDS
    numbers = {word.replace("±", " ").split()[0] for word in words if word[0].isdigit()}
    assert numbers <= {"134,515,008", "135M", "60.0", "11.3", "6-6-4-4"}


def test_a_wide_terminal_gets_the_longest_texts_on_one_line(table: FittedTable) -> None:
    drawn = lines(table, 80)
    row = "Full fine-tuning  134,515,008  60.0 ± 11.3  60.0 ± 11.3  60.0 ± 11.3"
    assert row in [line.rstrip() for line in drawn]
    assert "shortened" not in drawn


def test_narrow_terminals_get_shorter_texts_then_blocks(table: FittedTable) -> None:
    forms = {}
    for width in (66, 57, 42, 30):
        drawn = lines(table, width)
        heads = sum(line.startswith("Method") for line in drawn)
        text = "\n".join(drawn)
        spread = "60.0 ± 11.3" in text, "60.0±11.3" in text
        forms[width] = (heads, *spread, "shortened" in text)
    assert forms[66] == (1, True, False, False)
    assert forms[57] == (1, False, True, True)
    assert forms[42] == (1, False, False, True)
    assert forms[30][0] > 1


def test_prose_breaks_between_words_and_only_a_very_long_word_is_broken() -> None:
    made = FittedTable()
    made.add_column("name", label=True)
    made.add_column("about", prose=True)
    made.add_row("target_modules", "some words on it " * 5 + "x" * 90)
    drawn = lines(made, 60)
    assert max(map(cell_len, drawn)) <= 60
    assert "target_modules" in "\n".join(drawn)
    assert sum(line.count("words") for line in drawn) == 5


def test_escape_sequences_are_shown_and_widths_are_those_of_what_is_shown() -> None:
    made = FittedTable("\x1b[31mtitle")
    made.add_column("a\x1b[1m", label=True)
    made.add_column("b")
    made.add_row("\x1b]0;x\x07", "c")
    made.add_row("日本", "d")
    text = "\n".join(lines(made, 40))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u241b[31mtitle" in text
    (first, second) = text.splitlines()[-2:]
    assert cell_len(first.rstrip()) == cell_len(second.rstrip())


def test_the_console_itself_lets_no_escape_sequence_through() -> None:
    console = PlainConsole(width=40, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print("x\x1b]0;title\x9by", markup=False)
    assert captured.get() == "x\u241b]0;title\ufffdy\n"
