"""Both scorers' files side by side: what lm-eval writes itself, and what is written for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from finished_runs import FinishedRuns

from quanta_bench.cli.single_run import job
from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError
from quanta_bench.export.folder import export
from quanta_bench.export.harness import comparison, saving
from quanta_bench.export.harness.subject import of_folder, of_run
from quanta_bench.export.stored import StoredRun
from quanta_bench.results.store import Store
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner

pytest.importorskip("lm_eval")

SAME = ("doc_id", "doc", "target", "arguments", "filter", "doc_hash", "prompt_hash", "target_hash")


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A task whose answers are written."""
    path = tmp_path_factory.mktemp("counting") / "count.jsonl"
    rows = [
        {"prompt": f"Count from {n}:", "target": f" {n} {n + 1}", "split": "test"} for n in range(3)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return f"jsonl:{path}"


def scored(task: str, model: Path, folder: Path) -> StoredRun:
    """A run of the model itself."""
    settings = {"training.precision": "float32", "evaluation.items": 3}
    store = Store(folder)
    asked = job("none", [task], settings, 0, f"local:{model}", "embedded")
    return StoredRun(store, Runner(store, Silent(), Pools()).run(asked))


def lines(paths: list[Path]) -> list[dict[str, Any]]:
    (path,) = [path for path in paths if path.suffix == ".jsonl"]
    return [json.loads(line) for line in path.read_text().splitlines()]


def record(paths: list[Path]) -> dict[str, Any]:
    (path,) = [path for path in paths if path.suffix == ".json"]
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def numbers(values: Any) -> list[float]:
    """The log-likelihoods of responses: all numbers in nested lists."""
    if isinstance(values, str):
        return [float(values)] if values not in ("True", "False", "None") else []
    return [number for value in values for number in numbers(value)]


def test_an_items_line_is_the_one_that_lm_eval_writes(
    finished: FinishedRuns, tmp_path: Path
) -> None:
    run = finished("lora")
    made = comparison.compare(of_run(run), (), items=None, include=None, to=tmp_path)
    theirs = lines(made.files[saving.THEIRS])
    # Ours have the accuracy by the mean over tokens too, as a further filter.
    ours = [line for line in lines(made.files[saving.OURS]) if line["filter"] == "none"]
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs, strict=True):
        assert list(mine) == list(other)
        assert {key: mine[key] for key in SAME} == {key: other[key] for key in SAME}
        assert mine["metrics"] == other["metrics"] == ["acc", "acc_bytes"]
        assert (mine["acc"], mine["acc_bytes"]) == (other["acc"], other["acc_bytes"])
        for responses in ("resps", "filtered_resps"):
            assert numbers(mine[responses]) == pytest.approx(numbers(other[responses]), abs=1e-4)
            assert len(mine[responses]) == len(other[responses]) == 3
    both = [record(made.files[name])["results"] for name in (saving.THEIRS, saving.OURS)]
    for name in ("acc,none", "acc_bytes,none"):
        assert both[0]["quanta_bench_animals"][name] == both[1]["quanta_bench_animals"][name]


def test_written_answers_and_texts_have_the_same_hashes(
    tiny_model: Path, counting: str, tmp_path: Path, offline: None
) -> None:
    for kind, task in (("answers", counting), ("texts", "gsm8k_rationales")):
        run = scored(task, tiny_model, tmp_path / kind / "results")
        made = comparison.compare(of_run(run), (), items=None, include=None, to=tmp_path / kind)
        theirs, ours = (lines(made.files[name]) for name in (saving.THEIRS, saving.OURS))
        assert len(ours) == len(theirs) == 3
        for mine, other in zip(ours, theirs, strict=True):
            assert {key: mine[key] for key in SAME} == {key: other[key] for key in SAME}
            if kind == "answers":
                assert mine["resps"] == other["resps"]
                assert mine["exact_match"] == other["accuracy"]
            else:
                assert numbers(mine["resps"]) == pytest.approx(numbers(other["resps"]), rel=1e-4)
                # A sum and what it is divided by, as lm-eval's own perplexities are kept.
                assert mine["perplexity"][0] == pytest.approx(other["byte_perplexity"][0], rel=1e-4)
        hashes = [record(made.files[name])["task_hashes"] for name in (saving.THEIRS, saving.OURS)]
        assert hashes[0] == hashes[1] != {}


def test_a_folder_has_lm_evals_files_alone(
    finished: FinishedRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished("lora")
    (task,) = run.result.tasks
    export(run, tmp_path / "model", "merged")
    subject = of_folder(tmp_path / "model", "embedded")
    names = [f"quanta_bench_{task}"]
    made = comparison.compare(subject, names, items=2, include=None, to=tmp_path / "out")
    assert set(made.files) == {saving.THEIRS}
    assert record(made.files[saving.THEIRS])["model_name"] == "model"
    assert len(lines(made.files[saving.THEIRS])) == 2
    # lm-eval keeps quiet about what it cannot write.
    monkeypatch.setattr(Path, "write_text", lambda *words, **named: 1 / 0)
    with pytest.raises(BenchError, match="could not write"):
        comparison.compare(subject, names, items=2, include=None, to=tmp_path / "out")
