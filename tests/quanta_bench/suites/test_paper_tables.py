"""The paper's profiles of Tables 1, 2, 4, F.5 and F.7, from the command line to the table.

A tiny random LLaMA or RoBERTa stands in for the model, and the data are files in their authors'
formats.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import run_here
from glue_files import write_glue

from quanta_bench.suites.loading import load_suite

# The model is 64 wide.
SMALLER: dict[str, dict[str, Any]] = {
    "quanta": {"dims": [4, 4, 4]},
    "krona": {"side": 8},
    "mora": {"r": 2},
    "loretta_rep": {"rank": 2},
}
PROBLEMS = {"AQuA": "B", "gsm8k": "8.0", "mawps": "8.0", "SVAMP": "8.0"}


def drop_row(n: int) -> dict[str, Any]:
    answer = {"number": str(n), "date": {"day": "", "month": "", "year": ""}, "spans": []}
    passage = f"In game {n} Ann scored {n} goals."
    question = "How many goals did Ann score?"
    return {"passage": passage, "question": question, "answer": answer, "validated_answers": []}


def math_row(n: int, answer: str) -> dict[str, str]:
    question = f"Ann has {n} apples and gets some. How many? Answer Choices: (A) 1 (B) 8"
    return {"instruction": question, "input": "", "output": f"It is {answer}.", "answer": answer}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder that holds DROP, a checkout of LLM-Adapters, and GLUE's own files."""
    root = tmp_path_factory.mktemp("data")
    (root / "drop").mkdir()
    for split, start, count in (("train", 0, 60), ("validation", 100, 6)):
        rows = [json.dumps(drop_row(n)) for n in range(start, start + count)]
        (root / "drop" / f"{split}.jsonl").write_text("\n".join(rows))
    (root / "ft-training_set").mkdir()
    mixture = [math_row(n, "8.0") for n in range(60)]
    (root / "ft-training_set" / "math_10k.json").write_text(json.dumps(mixture))
    for name, answer in PROBLEMS.items():
        folder = root / "dataset" / name
        folder.mkdir(parents=True)
        for split in ("train", "test"):
            rows_of = [math_row(n, answer) for n in range(200, 206)]
            (folder / f"{split}.json").write_text(json.dumps(rows_of))
    write_glue(root)
    return root


def run(
    name: str,
    folder: Path,
    data: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> dict[str, Any]:
    """The table of a paper profile with the first row of each method."""
    content = load_suite(name).model_dump(mode="json")
    paper = content["profiles"]["paper"]
    first = {row["method"]: row for row in reversed(paper["rows"])}
    paper["rows"] = [row for row in paper["rows"] if row is first[row["method"]]]
    for row in paper["rows"]:
        row["settings"] |= SMALLER.get(row["method"], {})
    suite = folder / f"{name}.yaml"
    suite.write_text(yaml.safe_dump(content))
    words = [
        "table", suite, "--profile", "paper", "--seeds", "0", "--results", folder / "r",
        "--model", f"local:{model}", "--source", f"local:{data}", "--json",
        "--set", "training.epochs=1", "--set", "training.validations=1",
        "--set", "training.precision=float32", "--set", "training.train_items=4",
        "--set", "training.validation_items=2", "--set", "evaluation.items=2",
    ]  # fmt: skip
    said = run_here(monkeypatch, capsys, *words)
    assert said.status == 0, said.err
    table: dict[str, Any] = json.loads(said.out)
    rows = [row for row in table["rows"] if row["method"]]
    assert [row["method"] for row in rows] == list(
        dict.fromkeys(r["method"] for r in paper["rows"])
    )
    keys = {column["key"] for column in table["columns"]}
    for row in rows:
        assert (set(row["cells"]), row["done_seeds"]) == (keys, [0]), (row, table["notes"])
    return table


@pytest.mark.parametrize("name", ["table2", "tableF5"])
def test_drop_is_trained_and_scored_by_f1_and_exact_match(
    name: str, data: Path, tiny_model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    table = run(name, tmp_path, data, tiny_model, monkeypatch, capsys)
    assert [column["title"] for column in table["columns"]] == ["F1", "EM"]
    assert [column["items"] for column in table["columns"]] == [2, 2]


def test_arithmetic_has_an_average_with_and_without_aqua(
    data: Path, tiny_model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    table = run("table4", tmp_path, data, tiny_model, monkeypatch, capsys)
    for row in table["rows"]:
        means = [row["cells"][task]["mean"] for task in ("aqua", "gsm8k", "mawps", "svamp")]
        found = {title: value["mean"] for title, value in row["averages"].items()}
        assert found == {"Avg. without AQuA": sum(means[1:]) / 3, "Avg.": sum(means) / 4}


def texts(table: dict[str, Any]) -> list[str]:
    """The notes of a table, under whatever heading."""
    return [note for notes in table["notes"].values() for note in notes]


def test_rte_and_drop_are_trained_apart_each_in_its_own_way(
    data: Path, tiny_model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    table = run("table1", tmp_path, data, tiny_model, monkeypatch, capsys)
    notes = texts(table)
    assert any(note.startswith("RTE: Protocol: choice-text") for note in notes)
    assert any(note.startswith("DROP: Protocol: generate") for note in notes)
    assert not any("MIXED" in note for note in notes)
    records = [
        json.loads(path.read_text())
        for path in (tmp_path / "r" / "runs").glob("lora-*/result.json")
    ]
    trained = {tuple(r["training"]["spec"]["tasks"]): set(r["tasks"]) for r in records}
    assert trained == {("rte",): {"rte"}, ("drop",): {"drop"}}


def test_glue_is_answered_by_an_encoders_head(
    data: Path, tiny_roberta: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    table = run("tableF7", tmp_path, data, tiny_roberta, monkeypatch, capsys)
    assert [column["title"] for column in table["columns"]] == [
        "SST-2", "MRPC", "CoLA", "RTE", "STS-B",
    ]  # fmt: skip
    shown = {row["method"]: row for row in table["rows"]}
    # A layer's width is 64: a dense layer and one of two classes.
    head = 64 * 64 + 64 + 64 * 2 + 2
    lora = 2 * 2 * 8 * (64 + 64)
    # Three gates on 4 x 4, and five norms of two vectors.
    quanta = 2 * 2 * 3 * 16**2 + 5 * 2 * 64
    assert shown["lora"]["trainable"] == lora + head
    assert shown["quanta"]["trainable"] == quanta + head
    for note in (
        f"Trained without it: LoRA r=8 {lora:,}, QuanTA 8-6-4-4 {quanta:,}.",
        "Protocol: head, ",
        "Trained with the loss 'labels' and the protocol head",
    ):
        assert any(note in text for text in texts(table)), note
    for path in (tmp_path / "r" / "runs").glob("*/result.json"):
        record = json.loads(path.read_text())["training"]
        outputs = 1 if record["spec"]["tasks"] == ["stsb"] else 2
        assert record["head_parameters"] == 65 * 64 + 65 * outputs
        assert record["steps"] == 1
