"""From results, made by hand, to a table's numbers and to its files."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_by_hand import TRAINED, Bench, drawn, items, sentences, suite, two_models, two_seeds

from quanta_bench.report import render
from quanta_bench.report.table import Table

# --- numbers ----------------------------------------------------------------------------------


def test_mean_and_deviation_over_seeds_and_each_seeds_value(bench: Bench) -> None:
    row = two_seeds(bench).rows[1]
    boolq = row.cells["boolq"]
    assert boolq.seeds == {0: 50.0, 1: 25.0}
    assert boolq.mean == 37.5
    assert boolq.deviation == pytest.approx(25 / math.sqrt(2))
    assert "Avg." in row.averages
    assert row.averages["Avg."].seeds == {0: 62.5, 1: 62.5}
    assert row.averages["Avg."].deviation == 0.0
    assert row.done_seeds == [0, 1]


def test_one_seed_has_no_deviation(bench: Bench) -> None:
    row = bench.table(suite(), {3: bench.result({"boolq": items([1, 0]), "piqa": items([1, 0])})})
    value = row.rows[1].cells["boolq"]
    assert value.deviation is None
    # Two items: Student's t with one degree of freedom, 12.7 standard errors of 50.
    assert value.margin == pytest.approx(12.7062 * 50, rel=1e-4)
    assert row.rows[1].marks.endswith("§")
    assert any("accounts for test items alone: LoRA r=8" in note for note in sentences(row))


def test_the_items_error_is_of_each_items_mean_over_seeds(bench: Bench) -> None:
    """Seeds score the same items, so they are no new draws of items: not an error / sqrt(2)."""
    row = two_seeds(bench).rows[1]
    means = [1.0, 0.5, 0.0, 0.0]
    assert row.cells["boolq"].standard_error == pytest.approx(
        100 * np.std(means, ddof=1) / math.sqrt(4)
    )
    piqa = 100 * np.std([1, 1, 1, 0.5], ddof=1) / 2
    assert row.cells["piqa"].standard_error == pytest.approx(piqa)
    assert "Avg." in row.averages
    assert row.averages["Avg."].standard_error == pytest.approx(
        math.hypot(row.cells["boolq"].standard_error or 0, piqa) / 2
    )


def test_the_items_error_counts_groups_not_items(bench: Bench) -> None:
    twins = items([1, 1, 0, 0], ["a", "a", "b", "b"])
    alone = items([1, 1, 0, 0])
    row = bench.table(suite(), {0: bench.result({"boolq": twins, "piqa": alone})}).rows[1]
    # Residual sums 1 and -1: sqrt((1 + 1) * 2 / 1) / 4.
    assert row.cells["boolq"].standard_error == pytest.approx(100 * 2 / 4)
    assert row.cells["piqa"].standard_error == pytest.approx(100 * np.std([1, 1, 0, 0], ddof=1) / 2)


def test_seeds_scored_on_different_items_are_independent_draws(bench: Bench) -> None:
    scored = [items([1, 0, 1, 0], prefix=p) for p in ("x", "y")]
    results = {seed: bench.result({"boolq": one, "piqa": one}) for seed, one in enumerate(scored)}
    row = bench.table(suite(), results).rows[1]
    each = 100 * np.std([1, 0, 1, 0], ddof=1) / 2
    assert row.cells["boolq"].standard_error == pytest.approx(each / math.sqrt(2))


def test_a_metric_of_all_items_together_keeps_the_error_of_each_run(bench: Bench) -> None:
    """No line of the predictions holds an F1; that is no error of 0."""
    results = {}
    for seed, error in enumerate((0.03, 0.05)):
        found = bench.result({"boolq": items([1, 0, 1])})
        f1 = {"metric": "f1", "metrics": {"f1": 0.5}, "standard_error": error}
        tasks = {"boolq": found.tasks["boolq"].model_copy(update=f1)}
        results[seed] = found.model_copy(update={"tasks": tasks})
    value = bench.table(suite(tasks=("boolq",)), results).rows[1].cells["boolq"]
    assert value.standard_error == pytest.approx(4.0)


def test_one_group_has_no_error_and_no_brackets(bench: Bench) -> None:
    one = items([1, 0], ["a", "a"])
    row = bench.table(suite(), {0: bench.result({"boolq": one, "piqa": one})}).rows[1]
    assert row.cells["boolq"].standard_error is None
    table = bench.table(suite(), {0: bench.result({"boolq": one, "piqa": one})})
    assert "|  | s.e. | – | – | – |" in render.as_markdown(table)


@pytest.mark.parametrize(
    ("denominator", "added", "percent"),
    [
        ("base", TRAINED, 25.0),
        ("base+added", TRAINED, 20.0),
        # What trains is the base's own, so nothing is added.
        ("base+added", 0, 25.0),
    ],
)
def test_the_trained_share(bench: Bench, denominator: str, added: int, percent: float) -> None:
    one = {"boolq": items([1, 0]), "piqa": items([1, 0])}
    result = bench.result(one, training={"added_parameters": added})
    table = bench.table(suite(denominator=denominator), {0: result})
    assert table.rows[1].percent == pytest.approx(percent)
    assert table.rows[1].trainable == TRAINED
    assert render.heading(table) == f"% of {denominator}"


def test_rows_of_unlike_denominators_do_not_share_a_heading(bench: Bench) -> None:
    made = suite({"method": "lora"}, {"method": "dora", "denominator": "base+added"})
    one = {"boolq": items([1, 0]), "piqa": items([1, 0])}
    table = bench.table(made, {0: bench.result(one)}, {0: bench.result(one)})
    assert render.heading(table) == "%"
    assert [row.percent for row in table.rows[1:]] == [25.0, 20.0]


def test_chance_comes_first_and_has_no_seeds(bench: Bench) -> None:
    chance = two_seeds(bench).rows[0]
    assert chance.label == "Chance"
    assert chance.cells["boolq"].mean == 50.0
    assert "Avg." in chance.averages
    assert chance.averages["Avg."].mean == 50.0
    assert chance.done_seeds == []


def test_perplexity_is_not_a_percentage(bench: Bench) -> None:
    result = bench.result({"boolq": items([1, 0])})
    text = result.tasks["boolq"].model_copy(
        update={"kind": "perplexity", "metric": "perplexity", "metrics": {"perplexity": 12.5}}
    )
    result = result.model_copy(update={"tasks": {"boolq": text}})
    row = bench.table(suite(tasks=["boolq"]), {0: result}).rows[1]
    assert row.cells["boolq"].mean == 12.5
    assert render.mean(row.cells["boolq"]) == "12.50"
    assert render.cell(row.cells["boolq"]) == "12.50 ± 6.35"


# --- files ------------------------------------------------------------------------------------


def test_the_four_files_hold_the_same_numbers(bench: Bench, tmp_path: Path) -> None:
    table = two_seeds(bench)
    paths = render.write(table, tmp_path / "out")
    assert [path.name for path in paths] == ["t.md", "t.csv", "t.tex", "t.json"]
    texts = {path.suffix: path.read_text(encoding="utf-8") for path in paths}
    boolq, piqa = (f"{table.rows[1].cells[key].margin:.1f}" for key in ("boolq", "piqa"))
    assert f"| LoRA r=8 ‡ | 250 | 25 | 37.5 ± {boolq} | 87.5 ± {piqa} | 62.5 ± " in texts[".md"]
    assert (
        rf"LoRA r=8 $\ddagger$ & 250 & 25 & 37.5 $\pm$ {boolq} & 87.5 $\pm$ {piqa} & 62.5"
        in texts[".tex"]
    )
    assert Table.model_validate_json(texts[".json"]) == table


def test_csv_gives_back_every_value(bench: Bench) -> None:
    table = two_seeds(bench)
    lines = list(csv.DictReader(io.StringIO(render.as_csv(table))))
    assert [(line["label"], line["task"]) for line in lines] == [
        (label, task) for label in ("Chance", "LoRA r=8") for task in ("boolq", "piqa", "Avg.")
    ]
    boolq = table.rows[1].cells["boolq"]
    assert lines[3]["items"] == "4"
    assert float(lines[3]["mean"]) == boolq.mean
    assert float(lines[3]["deviation_over_seeds"]) == boolq.deviation
    assert float(lines[3]["interval_high"]) == boolq.mean + (boolq.margin or 0)
    assert list(map(float, lines[3]["standard_errors"].split())) == pytest.approx(
        list(boolq.seed_errors.values())
    )
    assert float(lines[3]["standard_error_over_items"]) == boolq.standard_error
    assert lines[3]["seeds"].split() == ["0", "1"]
    assert [float(value) for value in lines[3]["values"].split()] == [50.0, 25.0]
    assert lines[0]["values"] == ""


def test_markdown_rows_have_as_many_cells_as_the_header(bench: Bench) -> None:
    blocks = render.as_markdown(two_seeds(bench)).split("\n\n")
    tables = [block for block in blocks if block.startswith("|")]
    assert len(tables) == 3
    for block in tables:
        assert len({line.count("|") for line in block.strip().splitlines()}) == 1


def test_each_seed_has_a_line_and_its_own_error_another(bench: Bench) -> None:
    table = two_seeds(bench)
    row = table.rows[1]
    values = (row.cells["boolq"], row.cells["piqa"], row.averages["Avg."])
    errors = [[f"{value.seed_errors[seed]:.1f}" for value in values] for seed in (0, 1)]
    # Four items, two right: sqrt(1/4 * 4/3 / 4).
    assert values[0].seed_errors[0] == pytest.approx(100 * math.sqrt(1 / 12))
    lines = [
        ["LoRA r=8 ‡", "0", "50.0", "75.0", "62.5"],
        ["", "s.e.", *errors[0]],
        ["", "1", "25.0", "100.0", "62.5"],
        ["", "s.e.", *errors[1]],
    ]
    markdown = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    assert markdown in render.as_markdown(table)
    words = [line.split() for line in drawn(table).splitlines()]
    for line in lines:
        assert " ".join(line).split() in words


def latex_rows(text: str) -> list[list[list[str]]]:
    """The cells of every tabular of a LaTeX table."""
    return [
        [line.removesuffix(r" \\").split(" & ") for line in part.splitlines() if " & " in line]
        for part in text.split(r"\begin{tabular}")[1:]
    ]


def test_latex_has_both_parts_and_as_many_cells_as_columns(bench: Bench) -> None:
    table = two_seeds(bench)
    text = render.as_latex(table)
    first, second, costs = latex_rows(text)
    assert first[0] == ["Method", "Trained", r"\% of base", "BOOLQ", "PIQA", "Avg."]
    assert second[0] == ["Method", "Seed", "BOOLQ", "PIQA", "Avg."]
    assert first[-1] == ["items", "", "", "4", "4", ""]
    assert second[1][:3] == [r"LoRA r=8 $\ddagger$", "0", "50.0"]
    assert "{@{}lrrrrr@{}}" in text
    assert "{@{}lrrrr@{}}" in text
    for part in (first, second, costs):
        assert len({len(line) for line in part}) == 1


def test_what_a_row_took_is_by_seed_and_the_largest_peak(bench: Bench) -> None:
    def trained(seconds: float, tokens: int, peak: int | None, joules: float) -> dict[str, Any]:
        return {
            "seconds": seconds,
            "joules": joules,
            "tokens": tokens,
            "peak_memory_bytes": peak,
            "adapter_bytes": 3_000_000,
        }

    scored = {"boolq": items([1, 0]), "piqa": items([1, 0])}
    results = {
        seed: bench.result(scored, training=trained(*numbers))
        for seed, numbers in enumerate([(10.0, 900, 2_000_000, 1e3), (30.0, 1100, None, 4e3)])
    }
    table = bench.table(suite(), results)
    cost = table.rows[1].cost
    assert cost is not None
    assert (cost.training_seconds, cost.scoring_seconds) == (20, 1)
    assert cost.tokens_per_second == 50
    assert (cost.peak_memory_bytes, cost.adapter_bytes) == (2_000_000, 3_000_000)
    assert cost.joules == 2500
    assert "| LoRA r=8 ‡ | 20 | 50 | 1.0 | 2.0 | 3.0 | 2.5 |" in render.as_markdown(table)


def test_every_form_has_a_model_column_where_there_are_several(bench: Bench) -> None:
    table = two_models(bench)
    assert "| LoRA r=8 ‡§ | m-7b | 250 |" in render.as_markdown(table)
    assert "| LoRA r=8 ‡§ | m-13b | 0 |" in render.as_markdown(table)
    assert r"LoRA r=8 $\ddagger$§ & m-7b & 250 &" in render.as_latex(table)
    assert r"LoRA r=8 $\ddagger$§ & m-13b & 0 &" in render.as_latex(table)
    assert "Model" in drawn(table)
    for text in (render.as_markdown, render.as_latex, drawn):
        assert "Model" not in text(two_seeds(bench)).partition("Each seed")[0]


def test_one_task_has_no_average_in_any_form(bench: Bench) -> None:
    result = bench.result({"boolq": items([1, 0])})
    table = bench.table(suite(tasks=["boolq"]), {0: result})
    for text in (render.as_markdown(table), render.as_latex(table), drawn(table)):
        assert "Avg." not in text
    assert "| LoRA r=8 ‡§ | 250 | 25 | 50.0 ± 635.3 |\n" in render.as_markdown(table)


def test_labels_are_not_read_as_markup(bench: Bench) -> None:
    made = suite({"method": "lora", "label": "a | b [red]c"})
    one = {"boolq": items([1, 0]), "piqa": items([1, 0])}
    table = bench.table(made, {0: bench.result(one)})
    assert r"| a \| b [red]c ‡§ |" in render.as_markdown(table)
    assert "a | b [red]c" in drawn(table)


def test_latex_escapes_what_latex_reads_as_its_own(bench: Bench) -> None:
    label = r"a_b & 5% #1 {x} ~ ^ $ \y"
    made = suite({"method": "lora", "label": label}, about="c_d 10% – z ± 1")
    one = {"boolq": items([1, 0]), "piqa": items([1, 0])}
    text = render.as_latex(bench.table(made, {0: bench.result(one)}))
    written = r"a\_b \& 5\% \#1 \{x\} \textasciitilde{} \textasciicircum{} \$ \textbackslash{}y"
    assert written in text
    assert r"c\_d 10\% -- z $\pm$ 1" in text
    assert r"\caption{T\_1 \& 100\%}" in text


def test_json_is_plain_json(bench: Bench) -> None:
    data = json.loads(render.as_json(two_seeds(bench)))
    assert data["rows"][1]["cells"]["boolq"]["mean"] == 37.5
    assert list(data) == [
        "name",
        "title",
        "profile",
        "averages",
        "columns",
        "rows",
        "notes",
    ]
