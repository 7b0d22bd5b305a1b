"""``quanta-bench eval``: both scorers in one table, as text and as JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Bench
from finished_runs import FinishedRuns

pytest.importorskip("lm_eval")


def test_both_scorers_stand_in_one_table(
    finished: FinishedRuns, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = finished("lora")
    folder = run.store.run_folder(run.result.run)
    words = ["eval", folder, "--with", "lm-eval", "--items", "4"]
    done = bench(*words)
    assert done.status == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    for word in (
        run.result.run,
        "quanta_bench_animals",
        "quanta-bench",
        "lm-eval",
        "acc_bytes",
        "+0.0000",
        "nats",
    ):
        assert word in done.out
    # Its log and its progress bars are for those who watch.
    assert done.err == "Loading packages.\n"
    # The name in the table is one that --tasks takes.
    said = json.loads(bench(*words, "--json", "--tasks", "quanta_bench_animals").out)
    assert {row["task"] for row in said["rows"]} == {"quanta_bench_animals"}
    assert said["model"] == run.result.run
    assert {row["metric"] for row in said["rows"]} == {"acc", "acc_bytes"}
    assert all(row["difference"] == 0 and row["items"] == 4 for row in said["rows"])


def test_what_is_refused_says_why(finished: FinishedRuns, bench: Bench, tmp_path: Path) -> None:
    run = finished("lora")
    folder = run.store.run_folder(run.result.run)
    for words, message in (
        ([folder, "--with", "lm-evil"], "Did you mean 'lm-eval'?"),
        ([folder], "--with"),
        ([folder, "--with", "lm-eval", "--source", "hub"], "--source goes with an exported folder"),
        ([folder, "--with", "lm-eval", "--include-path", tmp_path / "x"], "There is no folder"),
        ([tmp_path, "--with", "lm-eval"], "neither a finished run nor a model"),
        (["nothing", "--with", "lm-eval"], "There is no run 'nothing'"),
        ([folder, "--with", "lm-eval", "--tasks", "quanta_bench_piqua"], "Did you mean 'piqa'"),
    ):
        done = bench("eval", *words)
        assert done.status == 2, words
        assert message in done.both, words
