"""Runs of a table that are trained together: same names, same results, and what is recorded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from quanta_bench.data.pools import Pools
from quanta_bench.errors import RunInProgressError, UsageError
from quanta_bench.results.store import Store
from quanta_bench.runs import together, trainings
from quanta_bench.runs.concurrency import read_together
from quanta_bench.runs.sweep import sweep
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.request import make_request

SUITE = """
name: together
tasks: [boolq]
profiles:
  embedded:
    model: .
    model_source: local:{model}
    training:
      {{source: "local:{data}", train_items: 8, validation_items: 4, batch_size: 4,
       precision: float32, learning_rate: 0.01}}
    evaluation: {{source: "local:{data}", items: 4}}
    seeds: [0, 1]
    rows:
      - {{method: none, label: Base}}
      - {{method: lora, label: LoRA, settings: {{r: 2, alpha: 4}}}}
      - {{method: lora, label: LoRA with dropout, settings: {{r: 2, alpha: 4, dropout: 0.1}}}}
      - {{method: prefix, label: Prefix, settings: {{num_virtual_tokens: 3}}}}
      - {{method: quanta, label: QuanTA, settings: {{dims: [4, 4, 4]}}}}
"""


@pytest.fixture(scope="module")
def computed(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, llm_adapters: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results of the table by run, its trainings one after another and together."""
    folder = tmp_path_factory.mktemp("together")
    path = folder / "suite.yaml"
    path.write_text(SUITE.format(model=tiny_model, data=llm_adapters))
    request = make_request(str(path), "table", "embedded", Choice(), check=True)
    found = []
    for most in (1, 8):
        store = Store(folder / str(most))
        console = Console(file=io.StringIO())
        _, failures = sweep(
            request.grid, store, console, lambda cells: "", pools=Pools(), most=most
        )
        assert not failures
        found.append({result.run: result for result in store.results()})
    return found[0], found[1]


def test_results_are_those_of_runs_alone(computed: Any) -> None:
    alone, common = computed
    assert alone.keys() == common.keys()
    for run, one in alone.items():
        other = common[run]
        assert other.training.losses == pytest.approx(one.training.losses, rel=1e-5)
        assert other.training.best_step == one.training.best_step
        assert other.training.tokens == one.training.tokens
        assert other.tasks["boolq"].metrics == pytest.approx(one.tasks["boolq"].metrics)


def test_how_many_were_trained_together_is_recorded(computed: Any) -> None:
    """Dropout draws random numbers and a prefix is no layer: such runs are trained alone."""
    alone, common = computed
    numbers = {result.training.label: result.training.together for result in common.values()}
    assert numbers == {"Base": 1, "LoRA": 4, "LoRA with dropout": 1, "Prefix": 1, "QuanTA": 4}
    assert {result.training.together for result in alone.values()} == {1}
    for result in common.values():
        if result.training.together > 1:
            assert 0 < result.training.seconds < result.training.elapsed_seconds


@pytest.mark.parametrize("fault", ["prepared", "lost"])
def test_what_fails_together_ends_no_run_but_its_own(
    tmp_path: Path,
    tiny_model: Path,
    llm_adapters: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    """Memory runs out where the base is loaded for all, or a lease is lost before a write."""
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.format(model=tiny_model, data=llm_adapters))
    choice = Choice(methods=("lora", "quanta"))
    request = make_request(str(path), "table", "embedded", choice, check=True)
    written: list[int] = []
    write = trainings.Training.write

    def losing(training: Any, outcome: Any, **options: Any) -> None:
        written.append(options.get("together", 1))
        if written == [4, 4]:
            raise RunInProgressError("the lease was lost")
        write(training, outcome, **options)

    def failing(*args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    if fault == "lost":
        monkeypatch.setattr(trainings.Training, "write", losing)
    else:
        monkeypatch.setattr(together, "_prepare", failing)
    store = Store(tmp_path / "results")
    console = Console(file=io.StringIO())
    _, failures = sweep(request.grid, store, console, lambda cells: "", pools=Pools(), most=8)
    assert not failures
    numbers = sorted(result.training.together for result in store.results())
    assert len(numbers) == sum(len(row.jobs) for row in request.grid)
    if fault == "lost":
        assert numbers.count(4) >= 3


def test_a_number_of_runs_or_auto() -> None:
    assert read_together("auto") is None
    assert read_together("5") == 5
    with pytest.raises(UsageError, match="--together takes a number from 1 to 9999, or auto"):
        read_together("0")
