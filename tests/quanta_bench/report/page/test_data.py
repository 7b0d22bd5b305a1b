"""What goes into the page: which runs, values, items and commands, and what is left out."""

from __future__ import annotations

import gzip
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hostile_results import HOSTILE, LABELS, fill
from paths import STUDY
from results_by_hand import Bench, items

from quanta_bench.cli import single_run
from quanta_bench.errors import BenchError
from quanta_bench.report.page import charts, grids, runs
from quanta_bench.report.page import items as browser
from quanta_bench.report.page.build import collect, make_page
from quanta_bench.report.page.commands import run_command, table_command
from quanta_bench.report.page.matching import runs_of
from quanta_bench.report.page.stored import Folder, read_folder
from quanta_bench.results.frames import frame
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.suites.choice import parse_settings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    fill(folder)
    return folder


def known(root: Path) -> tuple[Folder, grids.Known]:
    folder = read_folder(root)
    (table,) = folder.tables
    return folder, grids.know(0, table, folder.results)


# --- tables -----------------------------------------------------------------------------------


def test_a_cell_says_its_interval_seeds_and_items(root: Path) -> None:
    _, one = known(root)
    row = next(row for row in one.table.rows if row.label == "DoRA")
    value = row.cells["piqa"]
    assert value.margin is not None
    cell = grids.value_cell(value, one.table.columns[1])
    low, high = value.mean - value.margin, value.mean + value.margin
    assert f"95 % interval {low:.1f} to {high:.1f}" in cell.about
    assert "seeds 0: 50.0" in cell.about
    assert "n = 4 items" in cell.about
    assert cell.sort == value.mean


def test_runs_of_an_older_table_are_found_by_their_scores(root: Path) -> None:
    folder, one = known(root)
    for row, named in zip(one.table.rows, one.runs, strict=True):
        without = row.model_copy(update={"runs": []})
        assert runs_of(without, one.table.columns, folder.results) == named
        if named:
            other = {k: v.model_copy(deep=True) for k, v in row.cells.items()}
            for seed in other["piqa"].seeds:
                other["piqa"].seeds[seed] += 1
            changed = without.model_copy(update={"cells": other})
            assert runs_of(changed, one.table.columns, folder.results) == []


def test_differences_are_to_the_base_and_shaded_by_size(root: Path) -> None:
    _, one = known(root)
    made = grids.differences(one)
    assert made is not None
    by_label = {line.cells[0].text: line.cells[1:] for line in made.lines}
    assert [cell.text for cell in by_label["DoRA"]] == ["+50.0", "+0.0", "+25.0"]
    assert [cell.shade for cell in by_label["DoRA"]] == [4, 0, 3]
    assert [cell.text for cell in by_label[LABELS["lora"]]] == ["+25.0", "+25.0", "+25.0"]


def test_stale_rows_are_marked_with_what_has_changed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.result({"boolq": items([1, 0])}, code={}, training={"code": {}})
    folder = read_folder(tmp_path)
    grid, _ = runs.run_grid(frame(list(folder.results.values())), full=False)
    assert {line.stale for line in grid.lines} == {"its code was not recorded"}
    assert {line.cells[0].minor for line in grid.lines} == {"†"}


# --- charts -----------------------------------------------------------------------------------


def test_costs_are_means_over_seeds_and_unknown_ones_are_none(root: Path) -> None:
    folder, one = known(root)
    made = charts.trade_off(one, folder.results)
    rows = {row["label"]: row for row in made["rows"]}
    assert rows[LABELS["lora"]]["costs"] == {
        "parameters": 100,
        "seconds": 40.0,
        "memory": 3.0,
        "energy": None,
    }
    dora = rows["DoRA"]["costs"]
    assert (dora["parameters"], dora["seconds"], dora["memory"]) == (200, 30.0, None)
    assert set(rows["Base"]["costs"].values()) == {None}
    # LoRA has fewer parameters, DoRA fewer seconds and the higher score on boolq.
    fronts = {
        cost: [made["rows"][number]["label"] for number in numbers]
        for cost, numbers in made["fronts"]["boolq"].items()
    }
    assert fronts["parameters"] == [LABELS["lora"], "DoRA"]
    assert fronts["seconds"] == ["DoRA"]
    assert fronts["memory"] == [LABELS["lora"]]


def test_rates_come_from_searches_and_from_labels(root: Path) -> None:
    folder, one = known(root)
    (search,) = charts.rate_curves(folder.searches, [])
    (curve,) = search["curves"]
    assert [(t["rate"], t["score"], t["chosen"]) for t in curve["trials"]] == [
        (0.01, 0.5, False),
        (0.1, 5.0, True),
    ]
    assert curve["trials"][0]["ratio"] is None
    rows = [
        row.model_copy(update={"label": label})
        for row, label in zip(one.table.rows[-2:], ("LoRA r=8 3e-3", "LoRA r=8 1e-3"), strict=True)
    ]
    table = one.table.model_copy(update={"name": "rates", "rows": rows})
    (source,) = charts.rate_curves({}, [table])
    assert source["curves"][0]["label"] == "LoRA r=8"
    assert [t["rate"] for t in source["curves"][0]["trials"]] == [1e-3, 3e-3]


@pytest.mark.parametrize("trial", [{}, {"rate": "x"}, {"rate": 0}, {"score": 1}])
def test_a_trial_without_a_rate_is_no_trial(root: Path, trial: dict[str, Any]) -> None:
    data = json.loads((root / "tune-t.json").read_text())
    data["rows"][0]["trials"] = [trial]
    (root / "tune-t.json").write_text(json.dumps(data))
    folder = read_folder(root)
    assert charts.rate_curves(folder.searches, []) == []
    assert any("tune-t.json" in notice for notice in folder.notices)


def test_curves_hold_every_training_once_and_are_thinned(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, one = known(root)
    (group,), left_out = charts.learning_curves([one], folder.results, full=False)
    assert sorted((run["label"], run["seed"]) for run in group["runs"]) == sorted(
        (label, seed) for label in (LABELS["lora"], "DoRA") for seed in (0, 1)
    )
    assert group["runs"][0]["validations"] == [[5, 0.5, 0.9], [10, 0.6, 0.8]]
    assert left_out == []
    long = {
        run: result.model_copy(
            update={"training": result.training.model_copy(update={"losses": [0.5] * 1000})}
        )
        for run, result in folder.results.items()
    }
    (thin,), left_out = charts.learning_curves([one], long, full=False)
    assert all(len(run["losses"]) <= charts.LOSSES for run in thin["runs"])
    assert left_out == ["Training losses of 5 runs are thinned to 400 steps or fewer each."]
    (whole,), left_out = charts.learning_curves([one], long, full=True)
    assert all(len(run["losses"]) == 1000 for run in whole["runs"])
    assert left_out == []


# --- items ------------------------------------------------------------------------------------


def test_items_hold_every_run_s_answer(root: Path) -> None:
    folder = read_folder(root)
    made = browser.item_browser(folder, full=False)
    assert [group["task"] for group in made.groups] == ["boolq", "piqa"]
    assert made.note == ""
    for group in made.groups:
        assert "They are not stored with predictions" in group["note"]
        for item in group["items"]:
            for run, answer in zip(group["runs"], item["answers"], strict=True):
                (line,) = [
                    line
                    for line in folder.store.predictions(run["run"]) or ()
                    if (line["task"], line["id"]) == (group["task"], item["id"])
                ]
                assert answer == [line["prediction"], line["accuracy"]]
                assert item["gold"] == line["gold"]


def test_what_is_left_out_is_said_and_full_leaves_nothing_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = read_folder(root)
    monkeypatch.setattr(browser, "ITEMS", 3)
    monkeypatch.setattr(browser, "RUNS", 4)
    monkeypatch.setattr(runs, "LINES", 5)
    monkeypatch.setattr(runs, "RECORDS", 2)
    content, data, left_out = collect(folder, full=False)
    assert [len(group["items"]) for group in data["items"]] == [3, 3]
    assert len(content["runs"].lines) == 5
    assert len(content["provenance"]["runs"]) == 2
    assert left_out == [
        "Runs: 10 of 15 lines are left out.",
        "BOOLQ: 1 of 5 runs are left out.",
        "BOOLQ: 1 of 4 items are left out.",
        "PIQA: 1 of 5 runs are left out.",
        "PIQA: 1 of 4 items are left out.",
        "Provenance: 3 of 5 runs are left out.",
    ]
    content, data, left_out = collect(folder, full=True)
    assert left_out == []
    assert [len(group["items"]) for group in data["items"]] == [4, 4]
    assert len(content["runs"].lines) == 15


def test_long_texts_keep_their_ends() -> None:
    text = "a" * 1500 + "b" * 1500
    short = browser._short(text, full=False)
    assert short.startswith("a" * 1000)
    assert short.endswith("b" * 1000)
    assert "1,000 characters" in short
    assert browser._short(text, full=True) == text


def test_prompts_are_rebuilt_from_data_that_are_unchanged(offline: None) -> None:
    folder = read_folder(STUDY)
    made = browser.item_browser(folder, full=False)
    samples = {
        (task.task, sample.id): sample
        for task in (folder.samples.tasks if folder.samples else [])
        for sample in task.samples
    }
    compared = 0
    for group in made.groups:
        for item in group["items"]:
            sample = samples.get((group["task"], item["id"]))
            # What is cut depends on the run; of the rest, Table H has it from code of its own.
            if sample is not None and item["prompt"] is not None and sample.cut == 0:
                assert item["prompt"] == sample.prompt
                assert item["choices"] == sample.choices
                choices, gold = item["choices"], item["gold"]
                assert (choices[gold] if choices else gold) == sample.gold
                compared += 1
    assert compared >= 10


# --- provenance -------------------------------------------------------------------------------


def test_the_command_of_a_stored_run_asks_for_that_very_run() -> None:
    """The command line's own reading of the command gives the specs of the record."""
    asked: set[str] = set()
    for result in read_folder(STUDY).results.values():
        training = result.training.spec.model_dump_json(exclude={"seeds", "learning_rate"})
        kind = training + result.evaluation.model_dump_json()
        if kind in asked:
            continue
        asked.add(kind)
        words = shlex.split(run_command(result))
        assert words[:2] == ["quanta-bench", "run"]
        options: dict[str, list[str]] = {}
        for flag, value in zip(words[2::2], words[3::2], strict=True):
            options.setdefault(flag, []).append(value)
        job = single_run.job(
            options["--method"][0],
            options["--task"],
            parse_settings(options.get("--set", [])),
            int(options.get("--seed", ["0"])[0]),
            options.get("--model", ["smollm2-135m"])[0],
            options.get("--source", ["embedded"])[0],
        )
        planned = PlannedRun.of(job)
        assert planned.training == result.training.spec
        assert planned.evaluation == result.evaluation
    assert len(asked) > 30


def test_the_command_of_a_run_looks_where_the_run_is(root: Path) -> None:
    content, *_ = collect(read_folder(root), full=True)
    commands = [shlex.split(run["command"]) for run in content["provenance"]["runs"]]
    assert commands
    assert all(words[-2:] == ["--results", str(root)] for words in commands)


def test_the_command_of_a_row_names_suite_size_method_and_seeds() -> None:
    folder = read_folder(STUDY)
    tables = {table.name: table for table in folder.tables}
    rows = {row.label: row for row in tables["sums-medium"].rows}
    assert table_command(tables["sums-medium"], rows["LoRA r=8"], "a b") == (
        "quanta-bench table sums --size medium --methods lora --seeds 0,1,2 --results 'a b'"
    )
    assert table_command(tables["table3"], tables["table3"].rows[0], "x") == ""


# --- what cannot be read ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        ("file", "is not a folder"),
        ("empty", "There are no results in"),
    ],
)
def test_a_folder_without_results_is_refused(
    tmp_path: Path, content: str | None, words: str
) -> None:
    folder = tmp_path / "there"
    if content == "file":
        folder.write_text("x")
    elif content == "empty":
        folder.mkdir()
    with pytest.raises(BenchError, match=words):
        make_page(folder)


def test_what_is_damaged_is_named_and_left_out(root: Path) -> None:
    results = read_folder(root).results
    broken, *_, packed, _ = sorted(results)
    (root / "runs" / broken / "result.json").write_text("{")
    (root / "broken.json").write_text("{")
    (root / "half.json").write_text(json.dumps({"columns": [], "rows": [{}], "name": "half"}))
    (root / "other.json").write_text("[1]")
    predictions = root / "runs" / packed / "predictions.jsonl"
    predictions.with_suffix(".jsonl.gz").write_bytes(gzip.compress(predictions.read_bytes()))
    predictions.unlink()
    made = make_page(root)
    assert len(made.notices) == 3
    for name, notice in zip((broken, "broken.json", "half.json"), made.notices, strict=True):
        assert name in notice
    assert broken not in read_folder(root).results
    assert packed in read_folder(root).results


def test_the_page_holds_no_text_of_the_data_as_markup(root: Path) -> None:
    text = make_page(root).text
    assert "<img" not in text.replace("&lt;img", "")
    assert HOSTILE not in text
    assert "\x1b" not in text
    assert text.count("</script>") == 3
