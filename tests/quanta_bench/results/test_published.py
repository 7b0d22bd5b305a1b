"""The transcribed tables: complete, in agreement with itself and with the suite that names it."""

from __future__ import annotations

from collections import Counter

import pytest
from rich.console import Console

from quanta_bench.errors import BenchError
from quanta_bench.results.published import published_rows, published_table
from quanta_bench.suites.loading import load_suite, shipped

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


# --- the other tables ---------------------------------------------------------------------------

SIZES = {
    "table1": 3,
    "table2": 12,
    "table3": 29,
    "table4": 6,
    "tableF5": 17,
    "tableF6": 6,
    "tableF7": 2,
}
AVERAGED = {"table3": COLUMNS, "table4": ("gsm8k", "mawps", "svamp"), "tableF6": COLUMNS}
WRONG_AVERAGES = {("table4", "LLaMA2-7B", "LoRA")}
"""Rows whose printed average does not follow from their printed columns."""


@pytest.mark.parametrize("name", SIZES)
def test_every_table_is_whole(name: str) -> None:
    found = published_rows(name)
    assert len(found) == SIZES[name]
    assert len({tuple(row.values()) for row in found}) == len(found)
    for row in found:
        assert None not in row
        assert None not in row.values()
        for key, value in row.items():
            if value and key not in ("model", "label", "percent", "quoted_from"):
                assert 0 < float(value) < 100


@pytest.mark.parametrize("name", AVERAGED)
def test_printed_averages_follow_save_those_that_do_not(name: str) -> None:
    wrong = set()
    for row in published_rows(name):
        printed = [row[task] for task in AVERAGED[name]]
        if all(printed):
            mean = sum(map(float, printed)) / len(printed)
            if abs(float(row["average"]) - mean) > 0.05 + 1e-9:
                wrong.add((name, row["model"], row["label"]))
    assert wrong == {row for row in WRONG_AVERAGES if row[0] == name}


@pytest.mark.parametrize(("whole", "part"), [("table2", "tableF5"), ("table3", "tableF6")])
def test_the_appendix_repeats_the_main_tables(whole: str, part: str) -> None:
    model = published_rows(part)[0]["model"]
    repeated = [row for row in published_rows(whole) if row["model"] == model]
    assert [row for row in published_rows(part) if row in repeated] == repeated


@pytest.mark.parametrize("name", shipped())
def test_a_suite_has_the_columns_and_the_shares_of_its_published_table(name: str) -> None:
    suite = load_suite(name)
    if not suite.published:
        return
    found = published_rows(suite.published)
    assert set(suite.tasks) <= set(found[0])
    printed = Counter(row["percent"] for row in found if row.get("percent"))
    rows = suite.profiles["paper"].rows
    assert printed == Counter(row.printed for row in rows if row.printed)


def test_it_is_drawn_with_dashes_for_what_the_paper_leaves_out() -> None:
    console = Console(width=250)
    with console.capture() as drawn:
        console.print(published_table("table3"))
    (palm,) = (line for line in drawn.get().splitlines() if "PaLM" in line)
    assert palm.count("–") == 3  # the share, SIQA and the average


def test_a_table_that_is_not_transcribed_says_so() -> None:
    with pytest.raises(BenchError, match="published table9 is not transcribed"):
        published_rows("table9")
