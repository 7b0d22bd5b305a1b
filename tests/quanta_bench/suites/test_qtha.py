"""QTHA's table: its parameters beside LoRA's, and its own data from files to cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import run_here

from quanta_bench.plugins import find_task
from quanta_bench.spec import meta_reference
from quanta_bench.suites.grid import GridRow, grid
from quanta_bench.suites.loading import load_suite

SHARE = 0.24
"""Of LoRA's parameters: the abstract has 76 % fewer."""


def rows(profile: str) -> dict[str, GridRow]:
    return {row.spec.label: row for row in grid(load_suite("qtha"), profile)}


def trained(row: GridRow) -> int:
    """Trained parameters, by building the adapters on a model without weights."""
    from quanta_bench.models.meta import meta_model
    from quanta_bench.plugins import build_method

    method = build_method(row.spec.method, row.spec.settings)
    adapted = method.adapt(meta_model(meta_reference(row.model)), 0)
    return sum(value.numel() for value in method.trainable(adapted).values())


@pytest.mark.parametrize(
    ("profile", "lora", "qtha"),
    [
        ("embedded", 460_800, 109_500),
        ("one-gpu", 4_358_144, 1_064_672),
        ("paper", 4_194_304, 1_014_528),
    ],
)
def test_qtha_has_76_percent_fewer_parameters_than_its_lora(
    profile: str, lora: int, qtha: int
) -> None:
    found = rows(profile)
    ours = next(row for row in found.values() if row.spec.method == "qtha")
    assert ours.reference is not None
    theirs = found[ours.reference.label]
    assert (trained(theirs), trained(ours)) == (lora, qtha)
    assert round(qtha / lora, 2) == SHARE


def test_rows_of_its_size_are_beside_it() -> None:
    found = rows("embedded")
    size = trained(found["QTHA-style (our reading)"])
    for label in ("LoRA r=2", "QuanTA 3-4-4-4-3"):
        assert trained(found[label]) == pytest.approx(size, rel=0.1)


@pytest.mark.parametrize("profile", ["embedded", "one-gpu", "paper"])
def test_every_setting_of_qtha_says_that_it_is_ours(profile: str) -> None:
    row = rows(profile)["QTHA-style (our reading)"]
    for name in row.spec.settings:
        assert row.origin[name].startswith("our choice"), name


@pytest.mark.parametrize("profile", ["one-gpu", "paper"])
def test_replies_are_scored_by_two_tasks_after_one_training(profile: str) -> None:
    for row in rows(profile).values():
        of_seed = row.jobs[: row.parts]
        by_task = {scored.tasks: training for training, scored in of_seed}
        assert by_task[("cpsycound",)] == by_task[("cpsycound_written",)]
        assert by_task[("cpsycound",)].tasks == ("cpsycound",)
        assert by_task[("r1_distill_sft",)].tasks == ("r1_distill_sft",)


def test_the_stand_in_is_trained_on_as_text_and_written_too() -> None:
    for row in rows("embedded").values():
        for training, scored in row.jobs:
            assert training.tasks == ("gsm8k_rationales",)
            assert scored.tasks == ("gsm8k_rationales", "gsm8k_written")
    assert find_task("gsm8k_written").kind == "generate"


def dialogue(n: int) -> dict[str, Any]:
    first = [f"您好，我是{n}。", "请讲。"]
    return {"instruction": "我很累。", "input": "", "output": "为什么？", "history": [first]}


def test_its_own_data_from_files_to_cells(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder with one of the two data sets fills its columns; the others hold a dash."""
    data = tmp_path / "data" / "cpsycoun"
    data.mkdir(parents=True)
    (data / "train.json").write_text(json.dumps([dialogue(n) for n in range(60)]), "utf-8")
    (data / "test.json").write_text(json.dumps([dialogue(n) for n in range(90, 94)]), "utf-8")
    words = [
        "table", "qtha", "--profile", "one-gpu", "--seeds", "0", "--results", tmp_path / "r",
        "--model", f"local:{tiny_model}", "--source", f"local:{data.parent}", "--json",
        "--set", "training.validations=1", "--set", "training.precision=float32",
        "--set", "training.train_items=16", "--set", "training.validation_items=2",
        "--set", "evaluation.items=2", "--set", "evaluation.max_new_tokens=16",
    ]  # fmt: skip
    said = run_here(monkeypatch, capsys, *words)
    assert said.status == 0, said.err
    table = json.loads(said.out)
    found = {row["method"]: row for row in table["rows"]}
    scored = {"cpsycound", "cpsycound_written", "cpsycound_written/bleu"}
    assert set(found["none"]["cells"]) == scored
    for method in ("lora", "qtha"):
        cells = found[method]["cells"]
        assert set(cells) == scored | {"cpsycound/training_loss"}
    notes = [note for notes in table["notes"].values() for note in notes]
    assert any(note.startswith("R1-Distill-SFT is not filled") for note in notes)
    records = {
        record["id"]: record
        for path in (tmp_path / "r" / "runs").glob("*/result.json")
        for record in [json.loads(path.read_text("utf-8"))["training"]]
        if record["steps"]
    }
    assert len(records) == 2
    for record in records.values():
        shown = found[record["spec"]["method"]]["cells"]["cpsycound/training_loss"]
        assert shown["mean"] == pytest.approx(record["losses"][-1])
