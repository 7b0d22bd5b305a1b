"""Tables on terminals of several widths, and their LaTeX: snapshots, limits and structure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from results_by_hand import Bench, drawn, items, suite
from rich.cells import cell_len

from quanta_bench.report import render
from quanta_bench.report.screen_notes import LINES, ScreenNotes
from quanta_bench.report.table import Table
from quanta_bench.utils.plain_console import PlainConsole

SNAPSHOTS = Path(__file__).parent / "snapshots"
WIDTHS = (80, 100, 120, 160)
TITLES = {
    "boolq": "BoolQ",
    "piqa": "PIQA",
    "siqa": "SIQA",
    "hellaswag": "HellaS.",
    "winogrande": "WinoG.",
    "arc_easy": "ARC-e",
    "arc_challenge": "ARC-c",
    "openbookqa": "OBQA",
}
TASKS = tuple(TITLES)
HOSTILE = "[x](javascript:y) <b> \\input{z} | =1 & % \x1b[31m"


def eight_tasks(bench: Bench) -> Table:
    """Two rows of two seeds; every score follows from its task's place."""

    def scores(place: int, right: int) -> list[int]:
        return [1] * (place + right) + [0] * (10 - place)

    rows = [
        {
            seed: bench.result(
                {task: items(scores(n, seed + row)) for n, task in enumerate(TASKS)},
                training={
                    "trainable_parameters": (134_515_008, 205_440)[row],
                    "base_parameters": 134_515_008,
                },
            )
            for seed in (0, 1)
        }
        for row in (0, 1)
    ]
    labels = (
        {"method": "full", "label": "Full fine-tuning"},
        {"method": "quanta", "label": "QuanTA 6-6-4-4", "settings": {"dims": [6, 6, 4, 4]}},
    )
    table = bench.table(suite(*labels, tasks=TASKS, about="A profile. " * 30), *rows)
    # Results made by hand have tasks' names in capitals; real titles are shorter.
    columns = [c.model_copy(update={"title": TITLES[c.task]}) for c in table.columns]
    return table.model_copy(update={"columns": columns})


def hostile(bench: Bench) -> Table:
    made = suite({"method": "lora", "label": HOSTILE}, about=HOSTILE)
    return bench.table(made, {0: bench.result({"boolq": items([1, 0]), "piqa": items([1, 0])})})


def all_notes(table: Table) -> list[str]:
    return [note for notes in table.notes.values() for note in notes]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_looks_as_it_did(bench: Bench, width: int) -> None:
    """Compared with stored snapshots; without one the test fails.

    After an intended change, run it with ``UPDATE_SNAPSHOTS=1`` to write them, and read the diff.
    """
    text = "".join(f"{line.rstrip()}\n" for line in drawn(eight_tasks(bench), width).splitlines())
    path = SNAPSHOTS / f"eight_tasks_{width}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"{path} is missing; UPDATE_SNAPSHOTS=1 writes it"
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [*WIDTHS, 50, 300])
def test_nothing_is_broken_and_no_line_is_too_long(bench: Bench, width: int) -> None:
    table = eight_tasks(bench)
    text = drawn(table, width)
    assert max(map(cell_len, text.splitlines())) <= width
    row = table.rows[1]
    for value in (*row.cells.values(), *row.averages.values()):
        forms = (render.cell(value), render.close_cell(value), render.mean(value))
        assert any(form in text for form in forms)
    words = set(text.split())
    assert {"fine-tuning", "6-6-4-4", "Avg.", "BoolQ", "HellaS."} <= words
    assert words & {"134,515,008", "135M"}


def test_eight_tasks_of_two_seeds_fit_with_their_spread_in_120_columns(bench: Bench) -> None:
    table = eight_tasks(bench)
    text = drawn(table, 120)
    for value in table.rows[1].cells.values():
        assert render.close_cell(value) in text
    assert text.count("Method") == 3  # one for each section: no blocks


def test_in_80_columns_the_spread_is_left_out_which_is_stated(bench: Bench) -> None:
    text = drawn(eight_tasks(bench), 80).partition("Each seed")[0]
    assert "±" not in text
    assert "Shortened to fit this width" in text
    assert text.count("Method") == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_notes_take_eight_lines_at_most_and_the_files_have_all(bench: Bench, width: int) -> None:
    table = eight_tasks(bench)
    console = PlainConsole(width=width)
    with console.capture() as captured:
        console.print(ScreenNotes(table.notes, "t.md"))
    lines = captured.get().splitlines()
    assert len(lines) <= LINES
    headings = [line.partition(":")[0] for line in lines]
    assert [heading for heading in headings if heading in table.notes] == list(table.notes)
    shown = " ".join(" ".join(lines).split())
    left_out = sum(" ".join(note.split()) not in shown for note in all_notes(table))
    match = re.match(r"(\d+) more notes?: see t\.md\.", lines[-1])
    # A first note that is too long is cut, and counts as shown.
    assert (int(match[1]) if match else 0) in (left_out, left_out - 1)
    for text in (render.as_markdown(table), render.as_latex(table)):
        for note in all_notes(table):
            assert note.split()[-1].rstrip(".") in text


# --- LaTeX ------------------------------------------------------------------------------------


def environments(text: str) -> list[str]:
    """The environments of a LaTeX text in order of their beginning; they have to nest."""
    stack: list[str] = []
    begun: list[str] = []
    for which, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        if which == "begin":
            stack.append(name)
            begun.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    return begun


@pytest.mark.parametrize("make", [eight_tasks, hostile])
def test_latex_nests_and_has_labels_notes_and_rules(
    bench: Bench, make: Callable[[Bench], Table]
) -> None:
    text = render.as_latex(make(bench))
    one = ["table*", "adjustbox", "threeparttable", "tabular"]
    assert environments(text) == [*one, "tablenotes", *one, *one]
    assert re.findall(r"\\label\{(.*?)\}", text) == ["tab:t", "tab:t-2", "tab:t-3"]
    for rule in ("toprule", "bottomrule"):
        assert text.count(f"\\{rule}") == 3
    depth = 0
    for char in re.sub(r"\\[{}]", "", text):
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0
    # After the end of a row, LaTeX would read these as options.
    assert not re.search(r"\\\\\s*[\[*]", text)


ENGINE = next(filter(shutil.which, ("tectonic", "pdflatex", "xelatex", "lualatex")), None)


@pytest.mark.skipif(ENGINE is None, reason="no TeX engine is installed")
@pytest.mark.parametrize("make", [eight_tasks, hostile])
def test_latex_compiles_and_fits_a_page_of_two_columns(
    bench: Bench, tmp_path: Path, make: Callable[[Bench], Table]
) -> None:
    (tmp_path / "paper.tex").write_text(
        "\\documentclass[twocolumn]{article}\\usepackage[T1]{fontenc}"
        "\\usepackage{booktabs,threeparttable,adjustbox}\\begin{document}"
        f"{render.as_latex(make(bench))}\\end{{document}}",
        encoding="utf-8",
    )
    options = [] if ENGINE == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run(
        [str(ENGINE), *options, "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Overfull \\hbox" not in done.stdout
