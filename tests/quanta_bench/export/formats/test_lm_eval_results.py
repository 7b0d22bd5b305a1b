"""lm-evaluation-harness reads what is written for it, with our numbers."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from animals import write_data
from eee_package import eee_package
from finished_runs import FinishedRuns
from paths import ROOT
from pip_download import SourceMissingError

from quanta_bench.cli.single_run import job
from quanta_bench.data.pools import Pools
from quanta_bench.export.formats import lm_eval_results
from quanta_bench.export.formats.options import Options
from quanta_bench.export.stored import StoredRun, find_runs
from quanta_bench.results.store import Store
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner


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


def test_generated_answers_of_a_task_that_chooses_are_exact_matches(
    llm_adapters: Path, tiny_model: Path, tmp_path: Path
) -> None:
    settings = {"training.protocol": "generate"}
    source = f"local:{llm_adapters}"
    asked = job("none", ["piqa"], settings, 0, f"local:{tiny_model}", source)
    store = Store(tmp_path / "results")
    run = StoredRun(store, Runner(store, Silent(), Pools()).run(asked))
    path, items = lm_eval_results.write([run], tmp_path / "out", Options(items=True))
    record = json.loads(path.read_text())
    config = record["configs"]["quanta_bench_piqa"]
    assert config["output_type"] == "generate_until"
    assert [one["metric"] for one in config["metric_list"]] == ["exact_match"]
    assert "exact_match,none" in record["results"]["quanta_bench_piqa"]
    assert record["higher_is_better"]["quanta_bench_piqa"] == {"exact_match": True}
    assert {*json.loads(items.read_text().splitlines()[0])["metrics"]} == {"exact_match"}


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


def test_readers_find_each_items_line(finished: FinishedRuns, tmp_path: Path) -> None:
    """By lm-eval's own rules for names, and by pandas."""
    utils = pytest.importorskip("lm_eval.utils")
    run = finished("lora")
    (task,) = run.result.tasks.values()
    paths = lm_eval_results.write([run], tmp_path, Options(items=True))
    (results,) = utils.get_results_filenames([*map(str, paths)])
    (items,) = utils.get_sample_results_filenames([*map(str, paths)])
    assert utils.get_file_task_name(Path(items).name) == "quanta_bench_animals"
    found = utils.get_file_datetime(Path(results).name).removesuffix(".json")
    assert utils.get_file_datetime(Path(items).name) == found
    frame = pd.read_json(items, lines=True)
    plain = frame[frame["filter"] == "none"]
    assert len(plain) == task.items
    assert plain["acc"].mean() == pytest.approx(task.metrics["accuracy/sum"])
    assert plain["acc_bytes"].mean() == pytest.approx(task.metrics["accuracy/byte_mean"])
    by_token = frame[frame["filter"] == "token_mean"]
    assert by_token["acc"].mean() == pytest.approx(task.metrics["accuracy/token_mean"])


def test_two_scorings_of_a_model_have_files_of_their_own(
    finished: FinishedRuns, tmp_path: Path
) -> None:
    runs = [finished("lora"), finished("lora", **{"r": 2, "evaluation.normaliser": "sum"})]
    assert len({run.result.training.id for run in runs}) == 1
    for run in runs:
        os.utime(run.store.run_folder(run.result.run) / "result.json", (1e9, 1e9))
    paths = lm_eval_results.write(runs, tmp_path, Options(items=True))
    assert len({path.name for path in paths}) == 4
    assert lm_eval_results.write(runs, tmp_path, Options(items=True)) == paths


def test_a_chat_template_is_recorded_as_its_tracker_does(chat_model: Path, tmp_path: Path) -> None:
    from lm_eval.loggers.evaluation_tracker import GeneralConfigTracker
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    data = write_data(tmp_path)
    settings = {"evaluation.chat_template": True}
    asked = job("none", [f"jsonl:{data}"], settings, 0, f"local:{chat_model}", "embedded")
    store = Store(tmp_path / "results")
    run = StoredRun(store, Runner(store, Silent(), Pools()).run(asked))
    path, items = lm_eval_results.write([run], tmp_path / "out", Options(items=True))
    record = json.loads(path.read_text())
    lm = HFLM(
        pretrained=AutoModelForCausalLM.from_pretrained(chat_model),
        tokenizer=AutoTokenizer.from_pretrained(chat_model),
        device="cpu",
    )
    tracker = GeneralConfigTracker()
    tracker.log_experiment_args("hf", "", None, lm.chat_template(True), False)
    for field in (
        "chat_template",
        "chat_template_sha",
        "system_instruction",
        "system_instruction_sha",
        "fewshot_as_multiturn",
    ):
        assert record[field] == getattr(tracker, field), field
    assert len(record["chat_template"]) > 100
    assert asdict(tracker).keys() <= record.keys()
    # An item's request is what it would have made of the question.
    lines = [json.loads(line) for line in items.read_text().splitlines()]
    pool = Pools().get(f"jsonl:{data}", "embedded", "test")
    (example,) = [one for one in pool.examples if one.id == lines[0]["doc"]["id"]]
    context, answer = lines[0]["arguments"]["gen_args_0"].values()
    turn = [{"role": "user", "content": example.fields["prompt"]}]
    assert context == lm.apply_chat_template(turn)
    assert answer in example.fields["choices"]


def test_without_a_chat_template_none_is_recorded(finished: FinishedRuns) -> None:
    record = lm_eval_results.record(finished("lora"))
    assert record["chat_template"] is record["chat_template_sha"] is None
