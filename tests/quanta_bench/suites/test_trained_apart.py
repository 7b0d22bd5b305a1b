"""Tasks that are trained apart, columns that name a metric, and columns that a source lacks."""

from __future__ import annotations

import dataclasses
from io import StringIO
from typing import Any

import pytest
from pydantic import ValidationError
from results_by_hand import Bench, items
from rich.console import Console

from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError, MissingDataError
from quanta_bench.report import render
from quanta_bench.report.table import Table
from quanta_bench.report.tables import make_table
from quanta_bench.runs import runner
from quanta_bench.runs.availability import without_absent
from quanta_bench.runs.cells import Cells
from quanta_bench.runs.identity import PlannedRow
from quanta_bench.runs.sweep import sweep
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.grid import GridRow, grid
from quanta_bench.suites.request import Request
from quanta_bench.suites.schema import Suite

APART = {"trained": "apart", "seeds": [0, 1], "rows": ["none", "lora"]}


def suite(profile: dict[str, Any], **over: Any) -> Suite:
    content = {"name": "t", "tasks": ["boolq", "piqa"], "profiles": {"embedded": profile}}
    return Suite.model_validate({**content, **over})


def table(bench: Bench, made: Suite, results: dict[int, list[Any]]) -> Table:
    (row,) = grid(made, "embedded", Choice(methods=("lora",)))
    request = Request(made, "embedded", made.profiles["embedded"], "", [row])
    return make_table(request, [Cells(row, results)], bench.store)


def test_each_task_has_a_run_of_its_own_with_its_own_settings() -> None:
    own = {"piqa": {"training": {"epochs": 3}, "evaluation": {"protocol": "generate"}}}
    rows = grid(suite({**APART, "by_task": own}), "embedded")
    assert [row.parts for row in rows] == [2, 2]
    assert [(t.tasks, e.tasks, t.epochs, e.protocol, t.seeds.init) for t, e in rows[1].jobs] == [
        (("boolq",), ("boolq",), 1, "choice-text", 0),
        (("piqa",), ("piqa",), 3, "generate", 0),
        (("boolq",), ("boolq",), 1, "choice-text", 1),
        (("piqa",), ("piqa",), 3, "generate", 1),
    ]


def test_a_seed_that_varies_the_sample_draws_the_test_items_anew() -> None:
    (row,) = grid(suite({"rows": ["lora"], "seeds": [0, 3], "vary": ["sample"]}), "embedded")
    assert [(t.seeds.sample, e.sample) for t, e in row.jobs] == [(0, 0), (3, 3)]


@pytest.mark.parametrize(
    "over",
    [
        {"columns": [{"task": "rte"}]},
        {"columns": ["boolq", "boolq"]},
        {"averages": [{"title": "A", "columns": ["rte"]}]},
        {"profiles": {"embedded": {"by_task": {"boolq": {}}}}},
        {"profiles": {"embedded": {"trained": "apart", "by_task": {"rte": {}}}}},
    ],
)
def test_columns_averages_and_settings_of_tasks_that_are_not_there_are_refused(over: Any) -> None:
    with pytest.raises(ValidationError):
        suite(APART, **over)


def test_a_seed_is_done_when_all_its_parts_are(bench: Bench) -> None:
    boolq, piqa = (bench.result({task: items([1, 0, 1, 1])}) for task in ("boolq", "piqa"))
    later = bench.result({"boolq": items([0, 0, 0, 0])})
    row = table(bench, suite(APART), {0: [boolq, piqa], 1: [later]}).rows[1]
    assert row.done_seeds == [0]
    assert {task: value.seeds for task, value in row.cells.items()} == {
        "boolq": {0: 75.0},
        "piqa": {0: 75.0},
    }
    assert row.averages["Avg."].mean == 75.0
    begun = table(bench, suite(APART), {1: [later]}).rows[1]
    assert (begun.done_seeds, begun.averages) == ([], {})
    assert begun.cells["boolq"].mean == 0.0


def test_columns_of_two_metrics_of_a_task_and_averages_over_some(bench: Bench) -> None:
    result = bench.result({"boolq": items([1, 0]), "piqa": items([1, 1])})
    metrics = {"accuracy": 0.5, "accuracy/sum": 0.25}
    tasks = {**result.tasks, "boolq": result.tasks["boolq"].model_copy(update={"metrics": metrics})}
    made = suite(
        {"rows": ["lora"]},
        columns=["boolq", {"task": "boolq", "metric": "accuracy/sum", "title": "EM"}, "piqa"],
        averages=[{"title": "Some", "columns": ["boolq/accuracy/sum", "piqa"]}, {"title": "All"}],
    )
    drawn = table(bench, made, {0: [result.model_copy(update={"tasks": tasks})]})
    assert [column.title for column in drawn.columns] == ["BOOLQ", "EM", "PIQA"]
    chance, row = drawn.rows
    assert [row.cells[column.key].mean for column in drawn.columns] == [50.0, 25.0, 100.0]
    assert row.averages["Some"].mean == 62.5
    assert row.averages["All"].mean == pytest.approx(175 / 3)
    # The level of guessing is that of the main metric alone, and so is a run's error.
    assert set(chance.cells) == {"boolq", "piqa"}
    assert row.cells["boolq/accuracy/sum"].standard_error is None
    assert "| EM |" in render.as_markdown(drawn)


class Some(Pools):
    """Pools of a source that has some tasks."""

    def __init__(self, *lacking: str) -> None:
        super().__init__()
        self.lacking = lacking

    def get(self, reference: str, source: str, split: Any) -> Any:
        if reference in self.lacking:
            raise MissingDataError(f"{reference} is not here; use --source local:DIR.")


def available(made: Suite, *lacking: str) -> list[GridRow]:
    rows = [PlannedRow.of(row) for row in grid(made, "embedded")]
    return [planned.row for planned in without_absent(rows, Some(*lacking))]


def test_a_task_that_the_source_lacks_is_left_out_and_said(bench: Bench) -> None:
    (row,) = available(suite({**APART, "rows": ["lora"]}), "piqa")
    assert [e.tasks for _, e in row.jobs] == [("boolq",), ("boolq",)]
    assert row.parts == 1
    result = bench.result({"boolq": items([1, 0])})
    made = suite({**APART, "rows": ["lora"]})
    cells = [Cells(row, {0: [result], 1: [result]})]
    drawn = make_table(Request.of(made, "embedded"), cells, bench.store)
    assert drawn.rows[1].done_seeds == [0, 1]
    assert drawn.rows[1].averages == {}
    assert "PIQA is not filled: piqa is not here; use --source local:DIR." in drawn.notes["Caveats"]
    assert render.as_markdown(drawn).count(" – |") >= 2


def test_a_mixture_does_not_quietly_lose_a_task_and_a_table_not_all() -> None:
    with pytest.raises(MissingDataError, match="piqa is not here"):
        available(suite({"rows": ["lora"]}), "piqa")
    for profile in ({"rows": ["none"]}, {**APART, "rows": ["lora"]}):
        with pytest.raises(MissingDataError, match="boolq is not here"):
            available(suite(profile), "boolq", "piqa")
    (base,) = available(suite({"rows": ["none"]}), "piqa")
    assert base.jobs[0][1].tasks == ("boolq",)


def test_a_part_that_fails_is_named_and_the_other_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def compute(self: Any, planned: Any, **options: Any) -> Any:
        asked.append(planned.evaluation.tasks)
        if planned.evaluation.tasks == ("piqa",):
            raise BenchError("no room")
        return bench.result({"boolq": items([1, 0])})

    monkeypatch.setattr("quanta_bench.runs.sweep.without_absent", lambda rows, pools: list(rows))
    monkeypatch.setattr(runner.Runner, "find", lambda self, job: None)
    monkeypatch.setattr(runner.Runner, "compute", compute)
    monkeypatch.setattr("quanta_bench.runs.sweep.work", lambda run, pools: 1.0)
    rows = grid(suite({**APART, "rows": ["lora"]}), "embedded", Choice(seeds=(0,)))
    # Two rows of one model that come to the same runs share them.
    twice = [*rows, dataclasses.replace(rows[0])]
    quiet = Console(file=StringIO())
    cells, failed = sweep(twice, bench.store, quiet, lambda cells: "")
    assert asked == [("boolq",), ("piqa",), ("piqa",)]  # a failed run is tried once more
    assert failed == ["LoRA r=8, piqa: no room"]
    assert [[len(r) for r in cell.results.values()] for cell in cells] == [[1], [1]]
    assert [cell.complete for cell in cells] == [[], []]
