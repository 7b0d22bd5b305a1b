"""A worker's own part: orders in, messages out. In this process, but for its start and its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch

from quanta_bench.models import precision
from quanta_bench.models.precision import fast_dtype
from quanta_bench.results.store import Store
from quanta_bench.runs import worker
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.worker import Setting, order
from quanta_bench.runs.worker_pool import COMMAND
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec


@pytest.fixture
def make(tiny_model: Path, llm_adapters: Path) -> Callable[..., Job]:
    def job(method: str = "lora", **settings: Any) -> Job:
        data = {"tasks": ("boolq",), "source": f"local:{llm_adapters}"}
        training = TrainingSpec(
            model=ModelSpec(name=".", source=f"local:{tiny_model}"),
            method=method,
            settings=settings,
            train_items=8,
            precision="float32",
            **data,
        )
        return Job(method, training, EvaluationSpec(items=4, **data))

    return job


def compute(root: Path, *orders: bytes) -> list[tuple[Any, ...]]:
    """What a worker says to these orders."""
    said: list[tuple[Any, ...]] = []
    setting = Setting(str(root), 2, torch.get_num_threads(), {})
    worker._compute(setting, orders, lambda *words: said.append(words))
    return said


def test_a_run_is_what_it_is_in_the_command(make: Callable[..., Job], tmp_path: Path) -> None:
    expected = Runner(Store(tmp_path / "a"), Silent()).run(make(r=2))
    said = compute(tmp_path / "b", order(make(r=2), fresh=False))
    assert said[0] == ("ready",)
    assert said[-1] == ("done", expected.run)
    assert {words[0] for words in said[1:-1]} == set(worker.PROGRESS)
    result = Store(tmp_path / "b").result(expected.run)
    assert result is not None
    assert result.tasks["boolq"].metrics == expected.tasks["boolq"].metrics
    assert result.training.losses == expected.training.losses
    assert result.evaluation_environment.jobs == 2
    assert expected.evaluation_environment.jobs == 1


def test_failures_are_told_apart(
    make: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    runner = Runner(store, Silent())
    held = make(r=2)
    with store.computing(runner.identify(held).training):
        said = compute(
            tmp_path,
            order(make("quanta", dims=[7, 7]), fresh=False),
            order(held, fresh=False),
        )
    ends = [words for words in said if words[0] not in (*worker.PROGRESS, "ready")]
    assert [words[0] for words in ends] == ["refused", "failed"]
    assert "64" in ends[0][1]
    assert "Another process is computing" in ends[1][1]

    monkeypatch.setattr(Runner, "run", lambda *_, **__: {}["gone"])
    (_, fault) = compute(tmp_path, order(held, fresh=False))
    assert fault[:2] == ("fault", "KeyError: 'gone'")
    assert "Traceback" in fault[2]


def test_fresh_computes_again(make: Callable[..., Job], tmp_path: Path) -> None:
    orders = [order(make(r=2), fresh=fresh) for fresh in (False, False, True)]
    said = compute(tmp_path, *orders)
    assert [words[0] for words in said].count("done") == 3
    assert [words for words in said if words[0] == "scoring"] == [("scoring", 4)] * 2


def test_the_dtype_that_the_command_found_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside other runs, a timing could come out otherwise for some rows of a table."""
    monkeypatch.setattr(precision, "_known", {})
    monkeypatch.setattr(precision, "_matmul_seconds", lambda _: pytest.fail("timed again"))
    precision.settle("cpu", torch.bfloat16)
    assert fast_dtype("cpu") is torch.bfloat16


def test_a_worker_ends_with_its_command() -> None:
    """It has nothing to do yet, and so imports nothing heavy either."""
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [*COMMAND, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    ours.close()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err == b""


def test_orders_are_plain_json(make: Callable[..., Job]) -> None:
    job = make(r=2)
    said = json.loads(order(job, fresh=True))
    assert said["fresh"] is True
    assert TrainingSpec.model_validate(said["training"]) == job.training
    assert EvaluationSpec.model_validate(said["evaluation"]) == job.evaluation
