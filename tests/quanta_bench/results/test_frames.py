"""Results as data frames: what the records say, and what tables show."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from paths import STUDY
from results_by_hand import Bench, items, suite

import quanta_bench.results as results
from quanta_bench.errors import BenchError, UsageError
from quanta_bench.results.frames import COLUMNS, ITEM_COLUMNS
from quanta_bench.results.records import Result
from quanta_bench.spec import Seeds, TrainingSpec


@pytest.fixture
def runs(bench: Bench) -> dict[int, Result]:
    made = {}
    for seed in range(3):
        spec = TrainingSpec(
            method="lora", tasks=("boolq", "piqa"), seeds=Seeds(init=seed), settings={"r": 2**seed}
        )
        scored = {"boolq": items([1, 0, seed % 2, 0]), "piqa": items([1, 1, 0])}
        training = {"spec": spec, "label": "LoRA", "settings": {"r": 2**seed, "alpha": 16}}
        made[seed] = bench.result(scored, training=training, forgetting={"wikitext2": 20.0 + seed})
    return made


def test_the_columns_are_the_documented_ones_with_their_dtypes(
    bench: Bench, runs: dict[int, Result]
) -> None:
    frame = results.load(bench.store.root)
    assert list(frame)[: len(COLUMNS)] == list(COLUMNS)
    for name, (dtype, _) in COLUMNS.items():
        assert str(frame[name].dtype) in (dtype, {"str": "object"}.get(dtype, dtype)), name


def test_a_line_a_run_and_metric(bench: Bench, runs: dict[int, Result]) -> None:
    frame = results.load(bench.store.root)
    assert len(frame) == sum(
        len(task.metrics) for result in runs.values() for task in result.tasks.values()
    ) + len(runs)
    for result in runs.values():
        for task, scored in result.tasks.items():
            (line,) = frame[(frame.run == result.run) & (frame.task == task)].itertuples()
            assert line.value == scored.metrics[line.metric]
            assert line.standard_error == scored.standard_error
            assert (line.main, line.verified, line.stale) == (line.kind != "forgetting", True, "")
    after = frame[frame.kind == "forgetting"]
    assert sorted(after.value) == [20.0, 21.0, 22.0]
    assert after["items"].isna().all()


def test_only_settings_that_differ_have_columns(bench: Bench, runs: dict[int, Result]) -> None:
    frame = results.load(bench.store.root)
    extra = [name for name in frame if name not in COLUMNS]
    assert extra == ["training.seeds", "method.r"]
    assert frame.groupby("seed")["method.r"].unique().map(list).to_dict() == {
        0: [1],
        1: [2],
        2: [4],
    }


def test_the_numbers_of_a_table_follow_from_the_frame(
    bench: Bench, runs: dict[int, Result]
) -> None:
    row = bench.table(suite(), runs).rows[-1]
    frame = results.load(bench.store.root)
    kept = frame[frame.main & (frame.kind == "choice")]
    pivot = 100 * kept.pivot_table(index="task", values="value", aggfunc=["mean", "std"])
    for task, value in row.cells.items():
        assert value.mean == pytest.approx(pivot.loc[task, ("mean", "value")])
        assert value.deviation == pytest.approx(pivot.loc[task, ("std", "value")])


def test_the_errors_of_a_table_follow_from_the_predictions(
    bench: Bench, runs: dict[int, Result]
) -> None:
    row = bench.table(suite(), runs).rows[-1]
    lines = results.load_predictions(bench.store.root)
    assert list(lines)[:7] == list(ITEM_COLUMNS)[:7]
    assert len(lines) == 3 * 7
    means = lines.groupby(["task", "id"])["accuracy"].mean()
    for task, value in row.cells.items():
        # Every item is a group of its own.
        error = 100 * means[task].std() / math.sqrt(len(means[task]))
        assert value.standard_error == pytest.approx(error)


def test_predictions_of_some_runs_and_tasks(bench: Bench, runs: dict[int, Result]) -> None:
    lines = results.load_predictions(bench.store.root, runs=[runs[0].run], tasks=["piqa"])
    assert set(lines.run) == {runs[0].run}
    assert list(lines.task) == ["piqa"] * 3


def test_what_is_left_out_is_said(bench: Bench, runs: dict[int, Result]) -> None:
    (bench.store.run_folder(runs[0].run) / "predictions.jsonl").unlink()
    with pytest.warns(UserWarning, match="1 runs in .* have no predictions"):
        lines = results.load_predictions(bench.store.root)
    assert set(lines.run) == {runs[1].run, runs[2].run}
    path = bench.store.run_folder(runs[1].run) / "result.json"
    path.write_text(path.read_text()[:100])
    with pytest.warns(UserWarning, match=runs[1].run):
        frame = results.load(bench.store.root)
    assert set(frame.run) == {runs[0].run, runs[2].run}
    assert path.exists()


def test_nothing_to_load_is_said(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no finished run"):
        results.load(tmp_path)


def test_the_committed_study_loads() -> None:
    frame = results.load(STUDY)
    assert frame.run.nunique() == len(list(STUDY.glob("runs/*/result.json")))
    assert frame[frame.main].value.notna().all()
    table = frame[frame.main & (frame.kind == "choice")].pivot_table(
        index="row", columns="task", values="value"
    )
    assert isinstance(table, pd.DataFrame)
    assert ((table.fillna(0) >= 0) & (table.fillna(0) <= 1)).all(axis=None)


def test_files_are_read_once_however_often_a_table_is_drawn(
    bench: Bench, runs: dict[int, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: dict[str, int] = {}
    read = Path.read_bytes

    def count(path: Path) -> bytes:
        reads[str(path)] = reads.get(str(path), 0) + 1
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", count)
    for _ in range(5):
        bench.table(suite(), {seed: bench.store.result(r.run) or r for seed, r in runs.items()})
    predictions: list[Any] = [n for path, n in reads.items() if "predictions" in path]
    records = [n for path, n in reads.items() if path.endswith("result.json")]
    assert records == [1] * 3
    # Once to check the hash, once for the scores.
    assert predictions == [2] * 3


def test_a_table_of_the_study_is_loaded_under_its_own_labels() -> None:
    """Seed 0 of LoRA was asked for by a study of rates first, under another label."""
    table = json.loads((STUDY / "table2-full.json").read_text(encoding="utf-8"))
    frame = results.load(STUDY, table="table2-full")
    assert set(frame.suite) == {"table2-full"}
    means = frame[frame.main].groupby("row", sort=False).value.mean() * 100
    expected = {row["label"]: row["cells"]["drop"]["mean"] for row in table["rows"] if row["runs"]}
    assert list(means.index) == list(expected)
    assert means.to_dict() == pytest.approx(expected)


def test_a_table_that_is_not_there_is_refused_with_the_near_names() -> None:
    with pytest.raises(UsageError, match="Did you mean 'table2-full'"):
        results.load(STUDY, table="table2-ful")
