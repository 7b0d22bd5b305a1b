"""Every Eval Ever: its own validator takes what is written, and the numbers are the record's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from eee_package import eee_package, validated
from finished_runs import FinishedRuns
from pip_download import SourceMissingError
from scipy import stats

from quanta_bench.errors import BenchError, UsageError
from quanta_bench.export.formats import every_eval_ever as eee
from quanta_bench.export.formats.options import Options
from quanta_bench.export.stored import StoredRun, find_runs
from quanta_bench.results.store import Store

STUDY = "results/study"


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("*.json"))]


@pytest.fixture(scope="module")
def package() -> Path:
    try:
        return eee_package()
    except SourceMissingError as error:
        pytest.skip(str(error))


def several(finished: FinishedRuns) -> list[StoredRun]:
    """A run of each kind of task that the project's own study has, and one of a user's data."""
    from paths import ROOT

    found: dict[Any, StoredRun] = {}
    for run in find_runs([str(ROOT / STUDY)]):
        kinds = {task.kind for task in run.result.tasks.values()}
        found.setdefault((tuple(sorted(kinds)), bool(run.result.training.steps)), run)
    assert {kind for kinds, _ in found for kind in kinds} >= {"choice", "generate", "perplexity"}
    return [*found.values(), finished("lora")]


def test_its_own_validator_takes_every_file(
    package: Path, finished: FinishedRuns, tmp_path: Path
) -> None:
    eee.write(several(finished), tmp_path, Options("Some & One"))
    eee.write([finished("lora")], tmp_path, Options("Some & One", items=True))
    said = validated(tmp_path)
    assert len(said) == len([path for path in tmp_path.rglob("*") if path.is_file()])
    assert [one for one in said if not one["valid"] or one["warnings"]] == []


def test_the_schemas_are_those_of_the_package(package: Path) -> None:
    for path in eee.SCHEMAS.glob("*.json"):
        assert path.read_bytes() == (package / "every_eval_ever/schemas" / path.name).read_bytes()


def test_scores_intervals_and_settings_are_the_records(
    finished: FinishedRuns, tmp_path: Path
) -> None:
    run = finished("lora")
    (path,) = eee.write([run], tmp_path, Options("me"))
    (record,) = read(tmp_path)
    (task,) = run.result.tasks.values()
    model = record["model_info"]
    assert model["id"] == "/".join(path.relative_to(tmp_path).parts[2:4])
    assert json.loads(model["additional_details"]["settings"])["r"] == 2
    by_name = {one["metric_config"]["metric_name"]: one for one in record["evaluation_results"]}
    assert {key: one["score_details"]["score"] for key, one in by_name.items()} == task.metrics
    assert all(one["evaluation_name"] == "animals" for one in by_name.values())
    spread = by_name["accuracy"]["score_details"]["uncertainty"]
    assert task.standard_error is not None
    half = stats.t(task.groups - 1).ppf(0.975) * task.standard_error
    assert spread["confidence_interval"]["upper"] == pytest.approx(task.metrics["accuracy"] + half)
    command = by_name["accuracy"]["generation_config"]["generation_args"]["execution_command"]
    assert command == run.portable_command
    # Others read it: no folder of this machine is in it.
    (reference,) = run.result.tasks
    assert reference.startswith("jsonl:/")
    assert str(Path(reference.removeprefix("jsonl:")).parent) not in path.read_text()


def test_perplexities_are_lower_the_better_and_have_no_upper_end(tmp_path: Path) -> None:
    from paths import ROOT

    runs = find_runs([str(ROOT / STUDY)])
    run = next(run for run in runs if "gsm8k_rationales" in run.result.tasks)
    record = eee.aggregate(run, "gsm8k_rationales", Options("me"))
    eee.check(record, "eval")
    (main,) = [one for one in record["evaluation_results"]
               if one["metric_config"]["metric_name"] == "perplexity"]  # fmt: skip
    config = main["metric_config"]
    assert (config["lower_is_better"], config["min_score"]) == (True, 1)
    assert config["max_score"] == "Infinity"


def test_items_have_the_prompt_the_answer_and_the_score(
    finished: FinishedRuns, tmp_path: Path
) -> None:
    run = finished("lora")
    samples, path = eee.write([run], tmp_path, Options("me", items=True))
    text = samples.read_bytes()
    record = json.loads(path.read_text())
    details = record["detailed_evaluation_results"]
    assert details["checksum"] == hashlib.sha256(text).hexdigest()
    assert tmp_path / details["file_path"] == samples
    lines = [json.loads(line) for line in text.splitlines()]
    stored = run.store.predictions(run.result.run)
    assert stored is not None
    assert details["total_rows"] == len(lines) == len(stored)
    for line, item in zip(lines, stored, strict=True):
        assert line["input"]["raw"].startswith("Animal ")
        assert line["input"]["choices"] == [" moo", " meow", " quack"]
        assert line["input"]["reference"] == [line["input"]["choices"][item["gold"]]]
        assert line["output"]["raw"] == [line["input"]["choices"][item["prediction"]]]
        assert line["evaluation"]["score"] == item["accuracy"]


def test_an_item_on_which_candidates_tie_has_all_of_these(
    finished: FinishedRuns, tmp_path: Path
) -> None:
    run = finished("lora")
    first, *others = run.store.predictions(run.result.run) or ()
    tied = {**first, "prediction": None, "tied": [0, 2], "accuracy": 0.5}
    store = Store(tmp_path / "results")
    store.write_run(run.result, [tied, *others])
    samples, path = eee.write(
        [StoredRun(store, run.result)], tmp_path / "out", Options("me", items=True)
    )
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    details = json.loads(path.read_text())["detailed_evaluation_results"]
    assert details["total_rows"] == len(lines) == len(others) + 1
    assert lines[0]["output"]["raw"] == [" moo", " quack"]
    assert lines[0]["answer_attribution"][0]["extracted_value"] == " moo =  quack"
    assert lines[0]["evaluation"] == {"score": 0.5, "is_correct": False}


def test_a_run_is_written_under_the_same_name_again(finished: FinishedRuns, tmp_path: Path) -> None:
    first = eee.write([finished("lora")], tmp_path, Options("me"))
    assert eee.write([finished("lora")], tmp_path, Options("me")) == first
    assert len(read(tmp_path)) == 1
    assert eee.write([finished("quanta")], tmp_path, Options("me")) != first


def test_what_the_schema_refuses_is_not_written(
    finished: FinishedRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished("lora")
    with pytest.raises(UsageError, match="--organization"):
        eee.write([run], tmp_path, Options())
    whole = eee.aggregate
    monkeypatch.setattr(
        eee, "aggregate", lambda *words: {**whole(*words), "eval_library": {"name": 3}}
    )
    with pytest.raises(BenchError, match=r"refuses eval_library"):
        eee.write([run], tmp_path, Options("me"))
    assert not list(tmp_path.iterdir())


def test_items_of_data_that_have_changed_are_not_made_up(
    finished: FinishedRuns, tmp_path: Path
) -> None:
    run = finished("lora")
    ((name, task),) = run.result.tasks.items()
    other = task.model_copy(update={"data": {**task.data, "template": 99}})
    changed = StoredRun(run.store, run.result.model_copy(update={"tasks": {name: other}}))
    with pytest.raises(BenchError, match="changed since"):
        eee.write([changed], tmp_path, Options("me", items=True))
