"""Runs on a user's own model and data are found again wherever these, or the results, are moved."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from animals import write_data

from quanta_bench.cli.single_run import job
from quanta_bench.results.store import Store
from quanta_bench.runs.identity import Identity, PlannedRun
from quanta_bench.runs.places import by_last_names, without_places
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec, identity

SETTINGS = {
    "r": 2,
    "training.epochs": 1,
    "training.validations": 1,
    "training.precision": "float32",
}


@pytest.fixture
def here(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder with a model, data and results of one run."""
    folder = tmp_path / "here"
    folder.mkdir()
    shutil.copytree(tiny_model, folder / "model")
    write_data(folder)
    Runner(Store(folder / "results"), Silent()).run(asked(folder))
    return folder


def asked(folder: Path, method: str = "lora", **more: object) -> Job:
    tasks, model = [f"jsonl:{folder / 'animals.jsonl'}"], f"local:{folder / 'model'}"
    return job(method, tasks, {**SETTINGS, **more}, 0, model, "embedded")


def names(asked: Job, folder: Path) -> Identity:
    return Runner(Store(folder), Silent()).identify(PlannedRun.of(asked))


def test_a_moved_folder_of_model_data_and_results_is_found_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = here.rename(here.with_name("there"))
    monkeypatch.setattr("quanta_bench.training.trainer.train", None)
    runner = Runner(Store(there / "results"), Silent())
    result = runner.run(asked(there))
    (stored,) = runner.store.runs()
    assert result.run == stored
    assert list(result.tasks) == [f"jsonl:{there / 'animals.jsonl'}"]
    assert result.training.spec == PlannedRun.of(asked(there)).training
    # A further evaluation takes the training that was moved, and is a whole run itself.
    again = runner.run(asked(there, **{"evaluation.normaliser": "sum"}))
    assert again.training.id == result.training.id
    assert Store(there / "results").result(again.run) == again


def test_a_relative_name_is_the_same_place(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    assert names(asked(Path()), here).run == names(asked(here), here).run


@pytest.mark.parametrize("changed", ["animals.jsonl", "model/config.json"])
def test_other_content_at_the_same_place_is_another_run(here: Path, changed: str) -> None:
    before = names(asked(here), here).run
    path = here / changed
    if path.suffix == ".jsonl":
        path.write_text(path.read_text().replace("Animal 0", "Animal 100"))
        # A task reads its file once in the life of a process.
        shutil.copy(path, here / "model" / "animals.jsonl")
        shutil.copytree(here / "model", here / "model" / "model")
        assert names(asked(here / "model"), here).run != before
    else:
        path.write_text(path.read_text().replace("{", '{"note": 1,', 1))
        assert names(asked(here), here).run != before


def test_results_that_an_earlier_version_named_by_places_are_found(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(here / "results")
    (name,) = store.runs()
    result, lines = store.result(name), store.predictions(name)
    assert result is not None
    planned = PlannedRun.of(asked(here))
    runner = Runner(store, Silent())
    earlier = runner._identify(planned, "bfloat16", by_place=True)
    data = {"model": earlier.model, "data": earlier.training_data}
    assert earlier.training == identity(planned.training, **data)
    assert earlier.run != name
    training = result.training.model_copy(update={"id": earlier.training})
    store.write_run(
        result.model_copy(update={"run": earlier.run, "training": training}), lines or []
    )
    shutil.rmtree(store.run_folder(name))
    monkeypatch.setattr("quanta_bench.training.trainer.train", None)
    found = Runner(Store(here / "results"), Silent()).find(planned)
    assert found is not None
    assert found.run == earlier.run


def test_runs_without_places_keep_the_names_that_they_had() -> None:
    training = TrainingSpec(method="lora", tasks=("boolq",))
    assert without_places(training) is training
    assert by_last_names(training) is training
    evaluation = EvaluationSpec(tasks=("boolq", "wikitext2"), forgetting="wikitext2")
    assert without_places(evaluation) is evaluation
    hub = training.model_copy(update={"model": ModelSpec(name="a/b", source="hub")})
    assert without_places(hub) is hub


def test_a_model_in_a_folder_of_models_is_named_by_neither() -> None:
    specs = [
        TrainingSpec(method="lora", model=ModelSpec(name=name, source=source))
        for name, source in ((".", "local:/m/one"), ("one", "local:/m"), (".", "local:one"))
    ]
    assert len({without_places(spec).model_dump_json() for spec in specs}) == 1
    assert {by_last_names(spec).model.source for spec in specs} == {"local:one"}
