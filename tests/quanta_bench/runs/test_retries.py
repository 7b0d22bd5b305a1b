"""Runs that fail: tried once more, with the cause on disk and in every form of the table."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from animals import write_data, write_suite
from rich.console import Console

from quanta_bench.data import loader
from quanta_bench.errors import BenchError, DivergedError
from quanta_bench.report import render
from quanta_bench.report.table import Table
from quanta_bench.report.tables import make_table
from quanta_bench.results.store import Store
from quanta_bench.runs.stored import stored_cells
from quanta_bench.runs.sweep import sweep
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.request import make_request
from quanta_bench.training import trainer

Compute = Callable[[], tuple[Table, list[str], str]]


@pytest.fixture
def compute(tiny_model: Path, tmp_path: Path) -> Compute:
    """Computes a base and LoRA with two seeds: the table, the failures and the screen."""
    data = write_data(tmp_path, train=8, validation=4, test=8)
    suite = write_suite(tmp_path, data, tiny_model)
    request = make_request(str(suite), "table", "embedded", Choice(), check=True)
    store = Store(tmp_path / "r")

    def table() -> tuple[Table, list[str], str]:
        console = Console(file=io.StringIO(), width=200)
        cells, failed = sweep(request.grid, store, console, lambda _: "")
        made = make_table(request, cells, store)
        return made, failed, console.file.getvalue()  # type: ignore[attr-defined]

    return table


class Trainings:
    """Trainings of which some fail.

    Attributes:
        count: how many began.
    """

    def __init__(self, error: Callable[[int], BaseException | None]) -> None:
        self.count = 0
        self._error = error
        self._train = trainer.train

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.count += 1
        error = self._error(self.count)
        if error is not None:
            raise error
        return self._train(*args, **options)


def causes(root: Path) -> list[str]:
    """The causes on disk."""
    return [
        one["cause"]
        for path in sorted(root.glob("failures/*.json"))
        for one in json.loads(path.read_text())
    ]


def test_a_run_that_fails_once_is_tried_again_and_its_cause_kept(
    compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(lambda count: BenchError("a cable fell out") if count == 1 else None)
    monkeypatch.setattr(trainer, "train", trainings)
    table, failed, shown = compute()
    assert failed == []
    assert trainings.count == 3
    assert table.rows[-1].done_seeds == [0, 1]
    assert "LoRA, seed 0: failed; tried once more: a cable fell out" in shown
    assert causes(tmp_path / "r") == ["a cable fell out"]
    assert "¶" not in render.as_markdown(table)
    assert "failed" not in render.as_csv(table)


def test_a_run_that_fails_twice_stands_in_every_form_of_the_table(
    compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(lambda count: BenchError("no & power_1") if count <= 2 else None)
    monkeypatch.setattr(trainer, "train", trainings)
    table, failed, _ = compute()
    assert failed == ["LoRA, seed 0: no & power_1"]
    assert trainings.count == 3
    assert table.rows[-1].done_seeds == [1]
    assert causes(tmp_path / "r") == ["no & power_1"] * 2
    screen = Console(file=io.StringIO(), width=80)
    screen.print(render.on_screen(table))
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "LoRA ¶" in shown
    assert "¶ Failed: LoRA, seed 0: no & power_1." in " ".join(shown.split())
    assert "¶ Failed: LoRA, seed 0: no &" in render.as_markdown(table)
    assert "LoRA, seed 0: no \\& power\\_1." in render.as_latex(table)
    assert json.loads(render.as_json(table))["rows"][-1]["failed"] == failed
    last = render.as_csv(table).splitlines()[-1]
    assert last.startswith("LoRA,lora,")
    assert last.endswith(f'"{failed[0]}"')
    # The same command computes what is missing, and the note goes.
    table, failed, _ = compute()
    assert (failed, table.rows[-1].done_seeds) == ([], [0, 1])
    assert "¶" not in render.as_markdown(table)


def test_a_failed_run_stands_below_the_stored_table_too(
    tiny_model: Path, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(lambda count: BenchError(f"no power {count}") if count <= 2 else None)
    monkeypatch.setattr(trainer, "train", trainings)
    computed, failed, _ = compute()
    store = Store(tmp_path / "r")

    def stored(model: Path) -> Table:
        suite = write_suite(tmp_path, tmp_path / "animals.jsonl", model)
        request = make_request(str(suite), "table", "embedded", Choice(), check=True)
        cells = stored_cells(request.grid, store, partial=True)
        assert cells is not None
        return make_table(request, cells, store)

    # The last cause, as the table that was computed has it.
    assert failed == ["LoRA, seed 0: no power 2"]
    assert stored(tiny_model).rows[-1].failed == failed == computed.rows[-1].failed
    assert "¶ Failed: LoRA, seed 0: no power 2" in render.as_markdown(stored(tiny_model))
    # Neither the model nor anything else of the run has to be there.
    gone = tmp_path / "gone" / tiny_model.name
    gone.mkdir(parents=True)
    assert stored(gone).rows[-1].failed == failed
    # Once it is computed, the note goes.
    compute()
    assert stored(tiny_model).rows[-1].failed == []


def test_divergence_is_recorded_and_not_tried_again(
    compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(lambda count: DivergedError("the loss is nan") if count == 1 else None)
    monkeypatch.setattr(trainer, "train", trainings)
    table, failed, _ = compute()
    assert trainings.count == 2
    assert failed == ["LoRA, seed 0: the loss is nan"]
    assert causes(tmp_path / "r") == ["the loss is nan"]
    assert table.rows[-1].failed == failed


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
)
def test_what_does_not_fit_into_memory_is_tried_in_halves(
    compute: Compute,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    halvings = []

    def full(count: int) -> BaseException | None:
        halvings.append(loader.halvings())
        return error if count == 1 else None

    monkeypatch.setattr(trainer, "train", Trainings(full))
    table, failed, _ = compute()
    assert failed == []
    assert halvings == [0, 1, 0]
    assert causes(tmp_path / "r")[0].startswith("Memory ran out: ")
    stored = [result.training for result in Store(tmp_path / "r").results()]
    assert sorted(record.halvings for record in stored) == [0, 0, 1]
    assert any("half the size" in note for note in table.notes["Caveats"])


def test_halves_are_halves() -> None:
    device = torch.device("cpu")
    whole = loader.training_tokens(device), loader.evaluation_tokens(device)
    with loader.halved(1):
        assert (loader.training_tokens(device), loader.evaluation_tokens(device)) == (
            whole[0] // 2,
            whole[1] // 2,
        )
    assert (loader.training_tokens(device), loader.evaluation_tokens(device)) == whole
