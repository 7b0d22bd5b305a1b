"""What a worker does for a run, here in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from quanta_bench.errors import RunInProgressError, UsageError
from quanta_bench.models import precision
from quanta_bench.models.precision import fast_dtype
from quanta_bench.results.store import Store
from quanta_bench.runs import worker
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.worker import (
    ItemsScored,
    Progress,
    ScoringStarted,
    TrainingStep,
    WorkerSettings,
    compute_run,
)
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec


@pytest.fixture(autouse=True)
def no_runner_is_kept() -> Iterator[None]:
    yield
    worker._runner.cache_clear()


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


def compute(root: Path, job: Job, *, fresh: bool = False) -> tuple[str, list[Progress]]:
    """The name of a run, and its progress."""
    progress: list[Progress] = []
    settings = WorkerSettings(root, 2, torch.get_num_threads())
    return compute_run(settings, job, fresh, tell=progress.append), progress


def test_a_run_is_what_it_is_in_the_command(make: Callable[..., Job], tmp_path: Path) -> None:
    expected = Runner(Store(tmp_path / "a"), Silent()).run(make(r=2))
    name, progress = compute(tmp_path / "b", make(r=2))
    assert name == expected.run
    assert {type(one) for one in progress} == {TrainingStep, ScoringStarted, ItemsScored}
    result = Store(tmp_path / "b").result(name)
    assert result is not None
    assert result.tasks["boolq"].metrics == expected.tasks["boolq"].metrics
    assert result.training.losses == expected.training.losses
    assert result.evaluation_environment.jobs == 2
    assert expected.evaluation_environment.jobs == 1


def test_failures_keep_their_kind(make: Callable[..., Job], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="64"):
        compute(tmp_path, make("quanta", dims=[7, 7]))
    store = Store(tmp_path)
    held = PlannedRun.of(make(r=2))
    with (
        store.leases.hold(Runner(store, Silent()).identify(held).training),
        pytest.raises(RunInProgressError, match="is computing"),
    ):
        compute(tmp_path, make(r=2))


def test_fresh_computes_again(make: Callable[..., Job], tmp_path: Path) -> None:
    made = [compute(tmp_path, make(r=2), fresh=fresh) for fresh in (False, False, True)]
    assert len({name for name, _ in made}) == 1
    scored = [ScoringStarted(4) in progress for _, progress in made]
    assert scored == [True, False, True]


def test_the_dtype_that_the_command_measured_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside other runs, a timing could differ for some rows of a table."""
    monkeypatch.setattr(precision, "_fast_dtypes", {})
    monkeypatch.setattr(precision, "_matmul_seconds", lambda _: pytest.fail("timed again"))
    worker._runner(WorkerSettings(Path(), 2, torch.get_num_threads(), (("cpu", "bfloat16"),)))
    assert fast_dtype("cpu") is torch.bfloat16
