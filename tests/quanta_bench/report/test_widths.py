"""Tables on terminals of several widths, and their LaTeX: snapshots, limits and structure."""

from __future__ import annotations

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
TASKS = (
    "boolq",
    "piqa",
    "siqa",
    "hellaswag",
    "winogrande",
    "arc_easy",
    "arc_challenge",
    "openbookqa",
)
TITLES = dict(zip(TASKS, "BoolQ PIQA SIQA HellaS. WinoG. ARC-e ARC-c OBQA".split(), strict=True))
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
    assert environments(text) == [*one, "tablenotes", *one]
    assert re.findall(r"\\label\{(.*?)\}", text) == ["tab:t", "tab:t-2"]
    for rule in ("toprule", "bottomrule"):
        assert text.count(f"\\{rule}") == 2
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
