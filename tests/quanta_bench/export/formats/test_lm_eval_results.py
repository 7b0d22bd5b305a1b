"""lm-evaluation-harness reads what is written for it, with our numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eee_package import eee_package
from finished_runs import FinishedRuns
from paths import ROOT
from pip_download import SourceMissingError

from quanta_bench.errors import UsageError
from quanta_bench.export.formats import lm_eval_results
from quanta_bench.export.formats.options import Options
from quanta_bench.export.stored import StoredRun, find_runs


def cells(run: StoredRun, folder: Path) -> list[list[str]]:
    """The rows of the table that lm-eval makes of a run's file."""
    utils = pytest.importorskip("lm_eval.utils")
    (path,) = lm_eval_results.write([run], folder, Options())
    table = utils.make_table(json.loads(path.read_text()))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [row for row in rows if len(row) == 9][2:]


def test_its_own_table_has_our_numbers(finished: FinishedRuns, tmp_path: Path) -> None:
    run = finished("lora")
    (task,) = run.result.tasks.values()
    rows = cells(run, tmp_path)
    found = {(row[4], row[2]): (row[6], row[8]) for row in rows}
    named = {
        ("acc", "none"): "accuracy/sum",
        ("acc_bytes", "none"): "accuracy/byte_mean",
        ("acc", "token_mean"): "accuracy/token_mean",
    }
    assert found.keys() == named.keys()
    for key, metric in named.items():
        assert float(found[key][0]) == pytest.approx(task.metrics[metric], abs=1e-4)
    # The run chose by the mean over tokens, so that is what the standard error is of.
    assert task.standard_error is not None
    assert float(found["acc", "token_mean"][1]) == pytest.approx(task.standard_error, abs=1e-4)
    assert found["acc", "none"][1] == "N/A"
    assert {row[5] for row in rows} == {"↑"}


def test_answers_and_perplexities_of_the_study_are_in_its_table(tmp_path: Path) -> None:
    runs = find_runs([str(ROOT / "results/study")])
    answered = next(run for run in runs if "basic_arithmetic" in run.result.tasks)
    row = next(row for row in cells(answered, tmp_path) if row[0] == "basic_arithmetic")
    expected = answered.result.tasks["basic_arithmetic"].metrics["accuracy"]
    assert (row[4], float(row[6])) == ("exact_match", pytest.approx(expected, abs=1e-4))
    text = next(run for run in runs if "gsm8k_rationales" in run.result.tasks)
    found = {row[4]: row for row in cells(text, tmp_path)}
    value = text.result.tasks["gsm8k_rationales"].metrics["perplexity"]
    assert float(found["perplexity"][6]) == pytest.approx(value, abs=1e-4)
    assert found["perplexity"][5] == "↓"


def test_none_of_our_tasks_is_taken_for_one_of_theirs(finished: FinishedRuns) -> None:
    record = lm_eval_results.record(finished("lora"))
    parts: list[dict[str, Any]] = [record[part] for part in ("results", "configs", "versions")]
    assert all(name.startswith("quanta_bench_") for part in parts for name in part)
    # The base's name would give it the scores of what was trained.
    assert record["config"]["model_args"]["pretrained"] == record["model_name"]


def test_another_reader_of_its_results_reads_them(finished: FinishedRuns, tmp_path: Path) -> None:
    """Every Eval Ever converts what lm-eval writes, and knows its layout."""
    try:
        package = eee_package()
    except SourceMissingError as error:
        pytest.skip(str(error))
    import subprocess
    import sys

    run = finished("lora")
    (path,) = lm_eval_results.write([run], tmp_path, Options())
    program = f"""
import json, sys
sys.path[:0] = {[str(package), *sys.path]!r}
from every_eval_ever.converters.lm_eval.adapter import LMEvalAdapter
args = {{"source_organization_name": "me", "evaluator_relationship": "first_party"}}
(log,) = LMEvalAdapter().transform_from_file({str(path)!r}, args)
print(json.dumps({{one.evaluation_result_id: one.score_details.score
                   for one in log.evaluation_results}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (task,) = run.result.tasks.values()
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["acc"] == task.metrics["accuracy/sum"]
    assert found["acc:token_mean"] == task.metrics["accuracy"]


def test_its_own_search_finds_the_latest_file(finished: FinishedRuns, tmp_path: Path) -> None:
    utils = pytest.importorskip("lm_eval.utils")
    (path,) = lm_eval_results.write([finished("lora")], tmp_path, Options())
    names = utils.get_results_filenames([str(path)])
    assert utils.get_latest_filename(names) == str(path)


def test_items_are_not_written(finished: FinishedRuns, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without items"):
        lm_eval_results.write([finished("lora")], tmp_path, Options(items=True))
