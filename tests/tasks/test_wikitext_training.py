"""Whole runs on tasks whose texts are long, and whose metrics are made from all answers."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from quanta_bench.data.pools import Pools
from quanta_bench.results.store import Store
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec

LORA = {"r": 2, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few articles, longer than a window, and a few sentences."""
    root = tmp_path_factory.mktemp("data")
    (root / "wikitext-2").mkdir()
    for name, count in (("train", 3), ("valid", 2), ("test", 3)):
        lines = []
        for n in range(count):
            body = f" Article {n} of {name} says the same again . " * 8
            lines += [" ", f" = Article {n} = ", " ", body, " "]
        (root / "wikitext-2" / f"{name}.txt").write_text("\n".join(lines))
    (root / "CoLA").mkdir()
    for name, count in (("train", 60), ("dev", 12)):
        rows = [f"x\t{n % 2}\t\tThe {n} of {name} is{' not' * (n % 3)} it." for n in range(count)]
        (root / "CoLA" / f"{name}.tsv").write_text("\n".join(rows))
    return root


def run(task: str, folder: Path, model: Path, results: Path, **training: Any) -> Any:
    spec = {
        "model": ModelSpec(name=".", source=f"local:{model}"),
        "method": "lora",
        "settings": LORA,
        "tasks": (task,),
        "source": f"local:{folder}",
        "max_length": 64,
        "learning_rate": 1e-2,
        **training,
    }
    scoring = EvaluationSpec(tasks=(task,), source=f"local:{folder}", max_length=64)
    return Runner(Store(results), Silent(), Pools()).run(Job("x", TrainingSpec(**spec), scoring))


def test_articles_longer_than_a_window_are_trained_on_and_scored(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    result = run("wikitext2", folder, tiny_model, tmp_path, loss="answer", epochs=8)
    task, training = result.tasks["wikitext2"], result.training
    assert (task.items, task.metric, task.cut_items) == (3, "perplexity", 0)
    # Three articles of about 340 tokens, one a character, are six windows each.
    assert training.train_items == 18
    assert training.losses[-1] < training.losses[0] - 0.2
    assert task.metrics["word_perplexity"] > task.metrics["perplexity"] > 1
    assert task.standard_error is not None
    assert math.isfinite(task.standard_error)


def matthews(lines: list[dict[str, Any]]) -> float:
    """Matthews, 1975, from the four counts; 0 where one side is constant, as is usual."""
    counts = Counter((line["gold"], line["prediction"]) for line in lines)
    tn, fp, fn, tp = (counts[pair] for pair in ((0, 0), (0, 1), (1, 0), (1, 1)))
    norm = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / norm if norm else 0.0


def test_a_metric_of_all_answers_has_an_error_of_its_own(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    result = run("cola", folder, tiny_model, tmp_path, epochs=3)
    task = result.tasks["cola"]
    assert task.metric == "matthews"
    assert {"matthews", "accuracy", "matthews/sum"} <= task.metrics.keys()
    assert task.chance == 0
    lines = Store(tmp_path).predictions(result.run)
    assert task.metrics["matthews"] == pytest.approx(matthews(lines))
    # The jackknife: each item is a group of its own, and is left out once.
    left = [matthews([*lines[:n], *lines[n + 1 :]]) for n in range(len(lines))]
    mean = sum(left) / len(left)
    variance = (len(left) - 1) / len(left) * sum((value - mean) ** 2 for value in left)
    assert task.standard_error == pytest.approx(math.sqrt(variance))
