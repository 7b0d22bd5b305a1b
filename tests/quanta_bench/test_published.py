"""The transcribed table: complete, in agreement with itself and with the suite that names it."""

from __future__ import annotations

from collections import Counter

import pytest
from rich.console import Console

from quanta_bench.errors import BenchError
from quanta_bench.published import published_rows, published_table
from quanta_bench.suite import load_suite

TABLE3 = load_suite("3")
COLUMNS = TABLE3.tasks
PRINTED_MODELS = {
    "LLaMA-7B": "llama-7b",
    "LLaMA-13B": "llama-13b",
    "LLaMA2-7B": "llama2-7b",
    "LLaMA2-13B": "llama2-13b",
    "LLaMA3-8B": "llama3-8b",
}


def rows() -> list[dict[str, str]]:
    return published_rows("table3")


def test_every_row_is_there() -> None:
    assert len(rows()) == 29
    count = Counter(row["model"] for row in rows())
    assert sum(count[model] for model in PRINTED_MODELS) == 26


def test_the_columns_are_the_suites_in_its_order() -> None:
    assert tuple(rows()[0])[3:11] == COLUMNS


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['model']} {row['label']}")
def test_the_printed_average_follows_from_the_printed_columns(row: dict[str, str]) -> None:
    printed = [row[task] for task in COLUMNS]
    if not all(printed):
        assert row["average"] == ""
        return
    # Columns are rounded to 0.1 each and the average again.
    assert float(row["average"]) == pytest.approx(sum(map(float, printed)) / 8, abs=0.05 + 1e-9)


def test_the_paper_profile_has_these_rows_with_the_same_shares_and_sources() -> None:
    published = [
        (PRINTED_MODELS[row["model"]], row["percent"].rstrip("%"), row["quoted_from"])
        for row in rows()
        if row["model"] in PRINTED_MODELS
    ]
    planned = [
        (row.model, row.printed.rstrip("%"), row.quoted) for row in TABLE3.profiles["paper"].rows
    ]
    assert Counter(planned) == Counter(published)


def test_it_is_drawn_with_dashes_for_what_the_paper_leaves_out() -> None:
    console = Console(width=250)
    with console.capture() as drawn:
        console.print(published_table("table3"))
    (palm,) = (line for line in drawn.get().splitlines() if "PaLM" in line)
    assert palm.count("–") == 3  # the share, SIQA and the average


def test_a_table_that_is_not_transcribed_says_so() -> None:
    with pytest.raises(BenchError, match="published table9 is not transcribed"):
        published_rows("table9")
