"""A model that decides nothing: NaN fails the run by name, ties score chance, all of it stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError
from quanta_bench.results.records import Result, TaskResult
from quanta_bench.results.store import Store
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec

LORA = {"r": 2, "alpha": 4, "target_modules": ("q_proj", "v_proj")}
ITEMS = 24


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sums with the right answer always first, and candidates of several lengths."""
    path = tmp_path_factory.mktemp("choices") / "sums.jsonl"
    rows = [
        {"prompt": f"{n} + {n} =", "choices": [str(2 * n), "none", "a lot"], "answer": 0,
         "split": ("train", "validation", "test")[n % 3]}
        for n in range(3 * ITEMS)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return f"jsonl:{path}"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sums whose answers are generated."""
    path = tmp_path_factory.mktemp("answers") / "sums.jsonl"
    splits = ("train", "validation", "test")
    rows = [
        {"prompt": f"{n} + {n} =", "target": str(2 * n), "split": splits[n % 3]} for n in range(18)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return f"jsonl:{path}"


@pytest.fixture
def changed(tiny_model: Path, tmp_path: Path) -> Callable[[Callable[[Any], None]], ModelSpec]:
    """The tiny model with its weights changed in place."""

    def make(change: Callable[[Any], None]) -> ModelSpec:
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        with torch.no_grad():
            change(model)
        folder = tmp_path / "changed"
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
        return ModelSpec(name=".", source=f"local:{folder}")

    return make


def run(folder: Path, model: ModelSpec, task: str, **training: Any) -> Result:
    protocol = training.pop("protocol", "choice-text")
    spec = {"model": model, "method": "none", "tasks": (task,), "protocol": protocol}
    evaluation = EvaluationSpec(tasks=(task,), protocol=protocol)
    job = Job("it", TrainingSpec(**{"precision": "float32", **spec, **training}), evaluation)
    return Runner(Store(folder), Silent(), Pools()).run(job)


def uniform(model: Any) -> None:
    model.get_output_embeddings().weight.zero_()


def broken(model: Any) -> None:
    model.model.layers[1].mlp.down_proj.weight.fill_(float("nan"))


@pytest.mark.parametrize("protocol", ["choice-text", "generate"])
def test_a_base_model_of_nans_fails_the_run_and_is_named(
    changed: Any, choices: str, answers: str, protocol: str, tmp_path: Path
) -> None:
    task = choices if protocol == "choice-text" else answers
    loss = "candidates" if protocol == "choice-text" else "answer"
    with pytest.raises(BenchError) as error:
        run(tmp_path / "r", changed(broken), task, protocol=protocol, loss=loss)
    message = str(error.value)
    assert message.startswith(f"{task}, item jsonl/")
    assert "is nan. It was scored with the weights of changed" in message
    assert not list((tmp_path / "r").rglob("result.json"))


def test_a_collapsed_model_scores_chance_and_its_ties_are_stored(
    changed: Any, choices: str, tmp_path: Path
) -> None:
    result = run(tmp_path / "r", changed(uniform), choices)
    (task,) = result.tasks.values()
    assert task.tied == task.items == ITEMS
    assert task.metrics["accuracy"] == pytest.approx(1 / 3)
    assert task.chance == pytest.approx(1 / 3)
    assert task.standard_error == pytest.approx(0)
    # Sums of unequal length do not tie: the shortest is likeliest.
    assert task.metrics["accuracy/sum"] > 1 / 3
    lines = (tmp_path / "r" / "runs" / result.run / "predictions.jsonl").read_text().splitlines()
    for line in lines:
        item = json.loads(line, parse_constant=pytest.fail)
        assert item["tied"] == [0, 1, 2]
        assert item["prediction"] is None
        assert item["accuracy"] == pytest.approx(1 / 3)


def test_a_model_that_decides_has_no_ties(tiny_model: Path, choices: str, tmp_path: Path) -> None:
    model = ModelSpec(name=".", source=f"local:{tiny_model}")
    result = run(tmp_path / "r", model, choices)
    (task,) = result.tasks.values()
    assert task.tied == 0
    lines = Store(tmp_path / "r").predictions(result.run)
    assert [line["tied"] for line in lines] == [[]] * ITEMS


@pytest.mark.parametrize("rate", [1e9, 1e30])
def test_a_diverged_adapter_gains_nothing_by_the_order_of_choices(
    tiny_model: Path, choices: str, tmp_path: Path, rate: float
) -> None:
    """The right answer stands first in every item, where ``argmax`` would find it in a tie."""
    model = ModelSpec(name=".", source=f"local:{tiny_model}")
    training = {"method": "lora", "settings": LORA, "learning_rate": rate, "batch_size": 8}
    result = run(tmp_path / "r", model, choices, **training)
    (task,) = result.tasks.values()
    scores = [task.metrics["accuracy"], *(metric for _, metric, _ in result.training.validations)]
    assert all(score < 0.6 for score in scores)
    if rate == 1e30:
        # The norms overflow, divide by infinity, and leave zeros: every token is as likely.
        assert task.tied == task.items
        assert scores == pytest.approx([1 / 3] * len(scores))


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity"])
def test_a_stored_result_that_is_not_finite_is_not_read(bad: str) -> None:
    values: dict[str, Any] = {
        "title": "T", "kind": "choice", "metric": "accuracy", "metrics": {"accuracy": 0.5},
        "items": 2, "groups": 2, "standard_error": 0.1, "seconds": 1.0, "data": {},
    }  # fmt: skip
    assert TaskResult.model_validate(values).tied == 0
    for change in ({"metrics": {"accuracy": bad}}, {"standard_error": bad}, {"chance": bad}):
        with pytest.raises(ValidationError, match="finite number"):
            TaskResult.model_validate({**values, **change})
