"""Tables of a user's own model and data, all of which are moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from animals import write_data, write_suite
from command_line import Bench

from quanta_bench.plugins import find_task


def test_a_table_of_moved_folders_is_printed_stored_or_not(
    tmp_path: Path, tiny_model: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    shutil.copytree(tiny_model, here / "model")
    write_data(here)

    def suite(folder: Path) -> Path:
        path = folder / "suite.yaml"
        path.write_text(
            f"""
name: animals
title: Animals
tasks: ["jsonl:{folder / "animals.jsonl"}"]
profiles:
  embedded:
    model: .
    model_source: "local:{folder / "model"}"
    seeds: [0, 1]
    training: {{batch_size: 4, validations: 1, precision: float32}}
    rows: [none, {{method: lora, settings: {{r: 2}}}}]
"""
        )
        return path

    assert bench("table", suite(here), "--results", here / "r").status == 0
    before = (here / "r" / "animals.csv").read_text()
    there = here.rename(here.with_name("there"))
    monkeypatch.setattr("quanta_bench.training.trainer.train", None)
    for words in (["--stored"], []):
        said = bench("table", suite(there), "--results", there / "r", *words)
        assert said.status == 0, said.err
        after = (there / "r" / "animals.csv").read_text()
        assert after.replace(str(there), str(here)) == before
    compared = bench("compare", "none", "lora", "--table", suite(there), "--results", there / "r")
    assert compared.status == 0, compared.err


def test_a_stored_table_is_printed_where_model_and_data_are_gone(
    tmp_path: Path, tiny_model: Path, bench: Bench
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    data = write_data(tmp_path)
    suite = write_suite(tmp_path, data, tmp_path / "model")
    words = ["table", suite, "--results", tmp_path / "r"]
    before = bench(*words, "--json")
    assert before.status == 0
    data.unlink()
    shutil.rmtree(tmp_path / "model")
    find_task.cache_clear()
    said = bench(*words, "--stored", "--json")
    assert said.status == 0, said.err
    tables = [json.loads(one.out) for one in (before, said)]
    rows = [[(row["label"], row["cells"]) for row in table["rows"]] for table in tables]
    assert rows[0] == rows[1]
    # What computes says that they are gone.
    assert "animals.jsonl" in bench(*words).err
