"""`peft`'s method comparison: ours in its layout, and its rows beside ours."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from pathlib import Path

import pytest
from finished_runs import FinishedRuns
from method_comparison_files import result, write
from paths import ROOT

from quanta_bench.errors import UsageError
from quanta_bench.export.formats import method_comparison as ours
from quanta_bench.export.formats import peft_rows
from quanta_bench.export.formats.options import Options
from quanta_bench.export.stored import StoredRun, find_run, find_runs

CHECKOUT = "PEFT_CHECKOUT"
"""Names a clone of peft's repository, whose own reader judges the files: no package holds it."""


def test_a_run_is_read_back_with_its_numbers(finished: FinishedRuns, tmp_path: Path) -> None:
    run = finished("lora")
    (path,) = ours.write([run], tmp_path, Options())
    assert path.name.startswith("lora--")
    (row,) = peft_rows.read(tmp_path).rows
    (task,) = run.result.tasks.values()
    training = run.result.training
    assert (row.accuracy, row.kind) == (task.metrics["accuracy"], "LORA")
    assert row.trained == training.trainable_parameters
    assert row.total == training.base_parameters + training.added_parameters
    assert (row.file_bytes, row.seconds) == (training.adapter_bytes, training.seconds)
    assert row.loss == pytest.approx(sum(training.losses) / len(training.losses))
    assert row.memory_bytes is None  # of a processor
    assert row.forgetting is None  # no running text was scored
    config = json.loads(path.read_text())["run_info"]["peft_config"]
    assert (config["peft_type"], config["r"]) == ("LORA", 2)


def test_full_fine_tuning_has_no_adapter_and_the_base_no_training(finished: FinishedRuns) -> None:
    (row,) = peft_rows.ours([finished("full")])
    assert row.kind == "full-finetuning"
    assert ours.method_comparison(finished("none")) == []
    with pytest.raises(UsageError, match="no run with both"):
        ours.write([finished("none")], Path("nowhere"), Options())


@pytest.mark.parametrize("metric", ["matthews", "pearson", "perplexity"])
def test_a_correlation_and_a_perplexity_are_no_accuracy(
    metric: str, finished: FinishedRuns
) -> None:
    run = finished("lora")
    ((name, task),) = run.result.tasks.items()
    other = task.model_copy(update={"metric": metric, "metrics": {metric: 0.5}})
    result = run.result.model_copy(update={"tasks": {name: other}})
    assert ours.method_comparison(StoredRun(run.store, result)) == []


def test_forgetting_is_measured_against_the_base_on_the_same_text() -> None:
    runs = find_runs([str(ROOT / "results/study")])
    run = next(run for run in runs if run.result.training.steps and run.result.forgetting)
    (text,) = run.result.forgetting
    read = run.result.evaluation
    (before,) = {
        other.result.forgetting[text]
        for other in runs
        if other.result.training.spec.method == "none"
        and text in other.result.forgetting
        and other.result.evaluation.forgetting_items == read.forgetting_items
        and other.result.evaluation.sample == read.sample
    }
    found = ours.forgetting(run)
    assert found == pytest.approx(math.log(run.result.forgetting[text]) - math.log(before))


def test_the_latest_of_an_experiment_is_read_and_failures_are_counted(tmp_path: Path) -> None:
    write(
        tmp_path,
        result(accuracy=0.1, created="2025-01-01T00:00:00+00:00"),
        result(accuracy=0.3, created="2026-01-01T00:00:00+00:00"),
        result("full/lr1", peft_type=None, forgetting=None),
        result("lora/failed", status="failed"),
        {
            **result("lora/images"),
            "train_info": {**result()["train_info"], "metrics": [{"step": 1}]},
        },
    )
    read = peft_rows.read(tmp_path)
    found = {row.experiment: row for row in read.rows}
    assert read.skipped == 2
    assert found.keys() == {"lora/rank8", "full/lr1"}
    row = found["lora/rank8"]
    assert (row.accuracy, row.by, row.data) == (0.3, "peft", "metamath, gsm8k")
    assert (row.model, row.memory_bytes, row.tokens) == ("some/base", 20 * 2**30, 4321)
    assert (row.forgetting, found["full/lr1"].forgetting) == (0.05, None)
    assert found["full/lr1"].kind == "full-finetuning"


def test_what_is_no_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no folder"):
        peft_rows.read(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="among its 0 files"):
        peft_rows.read(tmp_path)
    for text, message in (
        ("{", r"0\.json is no JSON"),
        ("[]", "no JSON object"),
        ('{"run_info": 3}', "run_info: Input should be"),
        (json.dumps(result(accuracy="high")), "test accuracy"),
    ):
        (tmp_path / "0.json").write_text(text)
        with pytest.raises(UsageError, match=message):
            peft_rows.read(tmp_path)


def test_pefts_own_reader_takes_the_files(finished: FinishedRuns, tmp_path: Path) -> None:
    """Where a clone of its repository is named; the fixture above has the layout otherwise."""
    checkout = os.environ.get(CHECKOUT)
    if not checkout:
        pytest.skip(f"{CHECKOUT} names no clone of github.com/huggingface/peft")
    root = Path(checkout) / "method_comparison"
    spec = importlib.util.spec_from_file_location("processing", root / "processing.py")
    assert spec
    assert spec.loader
    processing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(processing)
    study = find_runs([str(ROOT / "results/study")])
    runs = [finished("lora"), finished("full"), *study]
    paths = ours.write(runs, tmp_path / "ours", Options())
    frame = processing.load_df(str(tmp_path / "ours"), "MetaMathQA")
    assert len(paths) == len(frame)
    rows = {row.experiment: row.accuracy for row in peft_rows.ours(runs)}
    assert dict(zip(frame["experiment_name"], frame["test_accuracy"], strict=True)) == rows
    theirs = str(root / "MetaMathQA/results")
    frame = processing.load_df(theirs, "MetaMathQA")
    read = {row.experiment: row.accuracy for row in peft_rows.read(Path(theirs)).rows}
    assert dict(zip(frame["experiment_name"], frame["test_accuracy"], strict=True)) == read
    assert len(read) > 30


def test_all_runs_of_a_results_folder_are_found(finished: FinishedRuns) -> None:
    runs = [finished("lora"), finished("quanta")]
    root = runs[0].store.root
    named = {run.result.run for run in find_runs([str(root), runs[0].result.run], root)}
    assert {run.result.run for run in runs} <= named
    assert find_run(runs[0].result.run, root).result == runs[0].result
