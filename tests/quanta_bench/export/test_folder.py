"""Exported folders load where this project is not, with the outputs of the trained model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_runs import FinishedRuns
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from quanta_bench.errors import BenchError, UsageError
from quanta_bench.export.folder import choose_form, export
from quanta_bench.export.stored import StoredRun, find_run
from quanta_bench.plugins import build_method

PEFTS = ("lora", "prefix", "peft")
MERGED = ("quanta", "full")
OURS = ("series",)
"""Those of which peft knows the type only after an import of ours."""

FORMS = {name: name for name in (*PEFTS, *MERGED, *OURS)} | {"lora-merged": "lora"}
"""The method of each folder that is written."""
TEXT = "Animal 3 of the list says"
TIED = {"r": 2, "target_modules": ["lm_head"]}
"""The tiny model's output layer is its embedding: a merge into one must not change the other."""


def expected(run: StoredRun, tiny_model: Path) -> torch.Tensor:
    """The outputs of the trained model, as the suite itself loads it."""
    spec = run.result.training.spec
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    model: Any = build_method(spec.method, spec.settings).load(base, run.adapter())
    ids = AutoTokenizer.from_pretrained(tiny_model)(TEXT, return_tensors="pt")
    with torch.no_grad():
        return model(input_ids=ids["input_ids"]).logits


@pytest.mark.parametrize(
    "names",
    [
        ("lora", "quanta", "series"),
        # All forms that there are: a dozen trainings, and as many models loaded twice.
        pytest.param((*PEFTS, *MERGED, "lora-merged", "tied", "series"), marks=pytest.mark.slow),
    ],
    ids=["few", "all"],
)
# peft warns of what the merge of the tied layer has to get right.
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_folders_load_without_this_project(
    names: tuple[str, ...], finished: FinishedRuns, tiny_model: Path, tmp_path: Path
) -> None:
    """One process loads them all, since importing torch, transformers and peft takes seconds."""
    runs = {}
    for name in names:
        run = runs[name] = finished("lora", **TIED) if name == "tied" else finished(FORMS[name])
        ours = name in OURS
        form = choose_form(run, merged=name in ("lora-merged", "tied"), unmerged=ours)
        assert form == ("unmerged" if ours else "adapter" if name in PEFTS else "merged")
        written = export(run, tmp_path / name, form)
        assert written.base == ("" if form == "merged" else str(tiny_model))
        assert {"README.md", "tokenizer.json"} <= set(written.files)
        # The line that peft needs for a type of ours is in the card, and in no other.
        assert ("import quanta_bench.tuners" in (tmp_path / name / "README.md").read_text()) == ours
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("foreign_process.py")), str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.stem: path.read_text() for path in tmp_path.glob("*.txt")} == {}
    assert done.stdout.split() == [f"{name}:'SERIES_ADAPTER'" for name in names if name in OURS]
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = AutoTokenizer.from_pretrained(tiny_model)(TEXT, return_tensors="pt")
    plain = base(input_ids=ids["input_ids"]).logits.detach()
    for name, run in runs.items():
        logits = load_file(tmp_path / f"{name}.safetensors")["logits"]
        torch.testing.assert_close(logits, expected(run, tiny_model), rtol=1e-4, atol=2e-5)
        # Training moved the outputs, so the base model itself would have failed.
        assert (logits - plain).abs().max() > 1e-3, name


def test_an_exported_adapter_names_no_file_of_the_results(
    finished: FinishedRuns, tiny_model: Path, tmp_path: Path
) -> None:
    run = finished("lora")
    export(run, tmp_path / "model", "adapter")
    config = json.loads((tmp_path / "model" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model)
    assert config["revision"] is None
    assert str(run.store.root) not in json.dumps(config)


def test_what_cannot_be_merged_says_what_to_do(finished: FinishedRuns, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"'series' cannot be merged.*--unmerged writes its adapter"
    ):
        choose_form(finished("series"))
    with pytest.raises(
        UsageError, match=r"'prefix' cannot be merged.*Without --merged, its adapter"
    ):
        choose_form(finished("prefix"), merged=True)
    with pytest.raises(UsageError, match="saves no adapter of peft"):
        choose_form(finished("full"), unmerged=True)
    with pytest.raises(UsageError, match="trained nothing"):
        choose_form(finished("none"))
    with pytest.raises(UsageError, match="exclude each other"):
        choose_form(finished("lora"), merged=True, unmerged=True)


def test_a_folder_with_files_is_left_alone(finished: FinishedRuns, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        export(finished("lora"), tmp_path, "adapter")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_whose_adapter_is_not_kept_gives_its_command(
    finished: FinishedRuns, tmp_path: Path
) -> None:
    run = finished("lora")
    bare = tmp_path / "runs" / run.result.run
    bare.mkdir(parents=True)
    for name in ("result.json", "predictions.jsonl"):
        (bare / name).write_bytes((run.store.run_folder(run.result.run) / name).read_bytes())
    with pytest.raises(BenchError, match=r"not kept in .*: quanta-bench run --method lora"):
        choose_form(find_run(str(bare)))


def test_a_run_is_found_by_folder_name_and_first_letters(finished: FinishedRuns) -> None:
    run, root = finished("lora").result.run, finished("lora").store.root
    for reference in (str(root / "runs" / run), run, run[:-6]):
        assert find_run(reference, root).result.run == run
    with pytest.raises(UsageError, match=f"Did you mean .*{run}"):
        find_run(run.replace("lora", "loar"), root)
    finished("full")
    with pytest.raises(UsageError, match="stands for several runs"):
        find_run("", root)
    with pytest.raises(UsageError, match="There is no run 'x' in"):
        find_run("x", root / "nowhere")
