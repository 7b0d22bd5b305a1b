"""Stored results of models and data in folders of one name are told apart by their content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from animals import write_data
from command_line import Bench
from tiny_models import save_llama

from quanta_bench.results.store import Store

RESULTS = "results"


def suite(root: Path, model: str, data: str) -> Path:
    """A suite on the model in one folder and the data in another, both of names that they share."""
    path = root / f"{model}-{data}.yaml"
    path.write_text(
        f"""
name: animals
title: Animals
tasks: ["jsonl:{root / data / "animals.jsonl"}"]
profiles:
  embedded:
    model: .
    model_source: "local:{root / model / "model"}"
    seeds: [0]
    training: {{batch_size: 4, validations: 1, precision: float32}}
    rows: [none, {{method: lora, settings: {{r: 2}}, training: {{learning_rate: 0.01}}}}]
"""
    )
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    for name, layers in (("a", 1), ("b", 2)):
        folder = root / name
        folder.mkdir()
        save_llama(folder / "model", num_hidden_layers=layers)
        data = write_data(folder)
        if name == "b":
            rows = data.read_text().splitlines()
            data.write_text("\n".join(row.replace("Animal", "Beast") for row in rows))
    return root


@pytest.fixture
def root(folders: Path, tmp_path: Path) -> Path:
    """A copy, at a path of its own: a task reads its file once in the life of a process."""
    shutil.copytree(folders, tmp_path / "copy")
    return tmp_path / "copy"


def table(bench: Bench, root: Path, model: str, data: str, *words: str) -> tuple[int, str, str]:
    """The status of a command, what it said with all notes of its table, and the table itself."""
    written, noted = root / RESULTS / "animals.csv", root / RESULTS / "animals.md"
    for path in (written, noted):
        path.unlink(missing_ok=True)
    said = bench("table", suite(root, model, data), "--results", root / RESULTS, *words)
    text, notes = (path.read_text() if path.exists() else "" for path in (written, noted))
    # The screen has room for the first notes.
    return said.status, " ".join((said.both + " " + notes).split()), text


@pytest.mark.parametrize(("model", "data"), [("b", "a"), ("a", "b")])
def test_each_gets_its_own_results(root: Path, bench: Bench, model: str, data: str) -> None:
    status, said, first = table(bench, root, "a", "a")
    assert status == 0, said
    status, said, shown = table(bench, root, model, data, "--stored")
    assert (status, shown) == (2, "")
    place = f"local:{root}/b/model" if model == "b" else f"jsonl:{root}/b/animals.jsonl"
    assert "No run of animals is stored in" in said
    assert f"another model or other data than those now in {place}; they are left out" in said
    status, said, second = table(bench, root, model, data)
    assert status == 0, said
    assert second != first
    for names, expected in ((("a", "a"), first), ((model, data), second)):
        status, said, shown = table(bench, root, *names, "--stored")
        assert status == 0, said
        assert shown == expected
        assert "found by their specs and by the content of" in said
        assert "Not readable here" not in said


def test_a_file_that_was_changed_is_another(root: Path, bench: Bench) -> None:
    assert table(bench, root, "a", "a")[0] == 0
    config = root / "a" / "model" / "config.json"
    config.write_text(config.read_text().replace("{", '{"note": 1,', 1))
    status, said, _ = table(bench, root, "a", "a", "--stored")
    assert status == 2
    assert f"those now in local:{root}/a/model; they are left out" in said


def test_what_cannot_be_read_matches_by_its_name_and_the_table_says_so(
    root: Path, bench: Bench
) -> None:
    _, _, first = table(bench, root, "a", "a")
    shutil.rmtree(root / "a" / "model")
    status, said, shown = table(bench, root, "a", "a", "--stored")
    assert status == 0, said
    assert shown == first
    assert "Not readable here: local:model. Results of others of the same names" in said


def test_a_failure_is_that_of_its_own_model(
    root: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert table(bench, root, "b", "a")[0] == 0

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a cable fell out")

    with monkeypatch.context() as patch:
        patch.setattr("quanta_bench.training.trainer.train", fail)
        assert table(bench, root, "a", "a")[0] == 1
    # The base of both is stored, and LoRA's row of one failed: not that of the other.
    for run in Store(root / RESULTS).runs():
        if run.startswith("lora"):
            shutil.rmtree(root / RESULTS / "runs" / run)
    status, said, _ = table(bench, root, "a", "a", "--stored")
    assert status == 0, said
    assert "a cable fell out" in said
    status, said, _ = table(bench, root, "b", "a", "--stored")
    assert status == 0, said
    assert "a cable fell out" not in said
    # A file of an earlier version says nothing of its content, and counts for both.
    (path,) = (root / RESULTS / "failures").iterdir()
    content = json.loads(path.read_text())
    path.write_text(json.dumps([{k: v for k, v in one.items() if k != "model"} for one in content]))
    assert "a cable fell out" in table(bench, root, "b", "a", "--stored")[1]
