"""``quanta-bench results``: what it writes, shows and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Bench
from finished_runs import FinishedRuns

from quanta_bench.export.formats.registry import FORMATS

PEFT_FILE = {
    "run_info": {
        "created_at": "2026-01-02T03:04:05+00:00",
        "experiment_name": "hira/rank32",
        "train_config": {"model_id": "some/base"},
        "peft_config": {"peft_type": "HIRA"},
    },
    "train_info": {
        "status": "success",
        "accelerator_memory_max": 3 * 2**30,
        "train_time": 12.5,
        "file_size": 2**20,
        "num_trainable_params": 1000,
        "num_total_params": 100_000,
        "metrics": [{"test accuracy": 0.625, "train loss": 0.5}],
    },
    "meta_info": {"dataset_info": {"gsm8k": {}}},
}


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_is_written_and_said(
    form: str, finished: FinishedRuns, bench: Bench, tmp_path: Path
) -> None:
    run = finished("lora")
    folder = run.store.run_folder(run.result.run)
    words = ["results", folder, "--as", form, "--organization", "me", "--to", tmp_path / "out"]
    done = bench(*words)
    assert done.status == 0, done.err
    assert f"Written: 1 run as {FORMATS[form].title}; 1 file in" in done.both
    said = json.loads(bench(*words, "--json").out)
    assert said["runs"] == [run.result.run]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert list(map(str, files)) == said["files"]


def test_pefts_rows_are_shown_beside_ours(
    finished: FinishedRuns, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # the experiment is named by the path of its data
    run = finished("lora")
    (tmp_path / "a.json").write_text(json.dumps(PEFT_FILE))
    words = ["results", run.store.root, "--beside", tmp_path]
    done = bench(*words)
    assert done.status == 0, done.err
    assert "hira/rank32" in done.out
    assert "0.625" in done.out
    assert run.result.training.id in done.out
    rows = json.loads(bench(*words, "--json").out)
    assert {row["by"] for row in rows} == {"peft", "quanta-bench"}


def test_what_is_refused_says_why(finished: FinishedRuns, bench: Bench, tmp_path: Path) -> None:
    folder = finished("lora").store.root
    for words, message in (
        ([folder], "--as FORMAT with --to DIR"),
        ([folder, "--as", "peft"], "--as FORMAT with --to DIR"),
        ([folder, "--as", "peft", "--to", tmp_path, "--beside", tmp_path], "--beside DIR alone"),
        ([folder, "--as", "pefd", "--to", tmp_path], "Did you mean 'peft'?"),
        ([folder, "--as", "eee", "--to", tmp_path], "--organization NAME"),
        ([folder, "--beside", tmp_path / "x"], "There is no folder"),
        (["nothing", "--as", "peft", "--to", tmp_path], "There is no run 'nothing'"),
    ):
        done = bench("results", *words)
        assert done.status == 2, words
        assert message in done.both, words
    (tmp_path / "file").write_text("")
    done = bench("results", folder, "--as", "lm-eval", "--to", tmp_path / "file")
    assert done.status != 0
    assert "file" in done.both
