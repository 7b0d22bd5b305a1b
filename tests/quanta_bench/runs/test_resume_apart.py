"""A table whose tasks are trained apart: stopped, gone on with, and computed anew."""

from __future__ import annotations

from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quanta_bench.results.store import Store
from quanta_bench.runs.cells import Cells
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.sweep import sweep
from quanta_bench.suites.grid import grid
from quanta_bench.suites.schema import Suite
from quanta_bench.training import trainer

PARTS = {
    ("none", ("boolq",), 0): 1,
    ("none", ("piqa",), 0): 1,
    ("lora", ("boolq",), 0): 1,
    ("lora", ("piqa",), 0): 1,
    ("lora", ("boolq",), 1): 1,
    ("lora", ("piqa",), 1): 1,
}


class Table:
    """The table of a tiny model, and how often each part of it was computed."""

    def __init__(self, model: Path, data: Path, root: Path, **row: Any) -> None:
        source = f"local:{data}"
        profile = {
            "model": ".",
            "model_source": f"local:{model}",
            "trained": "apart",
            "seeds": [0, 1],
            "training": {
                "source": source,
                "train_items": 4,
                "validation_items": 2,
                "validations": 1,
                "precision": "float32",
            },
            "evaluation": {"source": source, "items": 3},
            "rows": ["none", "lora", *([row] if row else [])],
        }
        content = {"name": "t", "tasks": ["boolq", "piqa"], "profiles": {"embedded": profile}}
        self.suite = Suite.model_validate(content)
        self.store = Store(root)
        self.computed: Counter[Any] = Counter()
        self.trained = 0

    def compute(self, *, fresh: bool = False) -> list[Cells]:
        """Compute what is not there; every part of every row has to be there afterwards."""
        self.computed.clear()
        self.trained = 0
        rows = grid(self.suite, "embedded")
        quiet = Console(file=StringIO())
        cells, failed = sweep(rows, self.store, quiet, lambda _: "", fresh="all" if fresh else "")
        assert not failed
        assert [cell.complete for cell in cells] == [list(cell.row.seeds) for cell in cells]
        return cells


@pytest.fixture
def table(
    tiny_model: Path, llm_adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Table:
    made = Table(tiny_model, llm_adapters, tmp_path)
    count(made, monkeypatch)
    return made


def count(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, train = Runner.compute_share, trainer.train

    def computed(self: Runner, job: Any, names: Any) -> Any:
        found = compute(self, job, names)
        spec = job.training
        table.computed[spec.method, job.evaluation.tasks, spec.seeds.init] += 1
        return found

    def trained(*args: Any, **options: Any) -> Any:
        table.trained += 1
        return train(*args, **options)

    monkeypatch.setattr(Runner, "compute_share", computed)
    monkeypatch.setattr(trainer, "train", trained)


def scores(cells: list[Cells]) -> dict[Any, float]:
    return {
        (cell.row.spec.method, seed, task): found.metrics[found.metric]
        for cell in cells
        for seed, results in cell.results.items()
        for result in results
        for task, found in result.tasks.items()
    }


def test_a_stopped_table_goes_on_with_the_parts_that_are_left(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = trainer.train

    def stopped(*args: Any, **options: Any) -> Any:
        if table.trained == 2:
            raise KeyboardInterrupt
        return train(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train", stopped)
        with pytest.raises(KeyboardInterrupt):
            table.compute()
    # Both tasks of the first seed are done, and of the second none.
    begun = {part: n for part, n in PARTS.items() if part[2] == 0}
    assert table.computed == begun
    cells = table.compute()
    assert table.computed == {part: n for part, n in PARTS.items() if part[2] == 1}
    assert table.trained == 2
    assert len(scores(cells)) == len(PARTS)
    # What is there is read, not computed.
    again = table.compute()
    assert not table.computed
    assert scores(again) == scores(cells)


def test_fresh_computes_each_part_once_and_to_the_same_scores(table: Table) -> None:
    first = scores(table.compute())
    assert table.computed == PARTS
    again = scores(table.compute(fresh=True))
    assert table.computed == PARTS
    assert table.trained == 4
    assert again == first
    assert len(list(table.store.root.glob("runs/*/result.json"))) == len(PARTS)


def test_fresh_trains_once_what_two_rows_score_otherwise(
    tiny_model: Path, llm_adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"method": "lora", "label": "sums", "evaluation": {"normaliser": "sum"}}
    table = Table(tiny_model, llm_adapters, tmp_path, **other)
    count(table, monkeypatch)
    for fresh in (False, True):
        table.compute(fresh=fresh)
        assert table.trained == 4
        assert table.computed == {part: 1 + (part[0] == "lora") for part in PARTS}
