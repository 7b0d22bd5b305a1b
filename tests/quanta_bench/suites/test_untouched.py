"""Tasks that no row trains on: scored beside the suite's own, in no average, held to the base."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from results_by_hand import Bench, items

from quanta_bench.costs.gpu_hours import Costs
from quanta_bench.costs.gpus import find_gpu
from quanta_bench.models.meta import Counts
from quanta_bench.report.table import Table
from quanta_bench.report.tables import make_table
from quanta_bench.runs.cells import Cells
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.grid import grid
from quanta_bench.suites.request import Request
from quanta_bench.suites.schema import Suite
from quanta_bench.tuning.trials import plan

PROFILE: dict[str, Any] = {
    "seeds": [0, 1],
    "vary": ["init", "order", "sample"],
    "training": {"protocol": "generate", "loss": "answer", "train_items": 8, "validation_items": 4},
    "evaluation": {"protocol": "generate", "items": 50, "forgetting": "running_text"},
    "untouched": {"tasks": ["piqa", "wikipedia_text"], "evaluation": {"protocol": "choice-text"}},
    "size": "small",
    "sizes": {"small": {"evaluation": {"items": 20}, "untouched": {"items": 9}}},
    "rows": ["none", "lora", "krona"],
}


def suite(**over: Any) -> Suite:
    profile = {**PROFILE, **over}
    tasks = ["gsm8k", "basic_arithmetic"]
    return Suite.model_validate({"name": "t", "tasks": tasks, "profiles": {"embedded": profile}})


def test_a_seed_scores_them_in_a_run_of_the_same_training() -> None:
    (row,) = grid(suite(), "embedded", Choice(methods=("lora",)))
    assert row.parts == 2
    assert [
        (seed, e.tasks, e.protocol, e.items, e.forgetting, e.sample)
        for seed, (_, e) in zip((0, 0, 1, 1), row.jobs, strict=True)
    ] == [
        (0, ("gsm8k", "basic_arithmetic"), "generate", 20, "running_text", 0),
        (0, ("piqa", "wikipedia_text"), "choice-text", 9, "", 0),
        (1, ("gsm8k", "basic_arithmetic"), "generate", 20, "running_text", 1),
        (1, ("piqa", "wikipedia_text"), "choice-text", 9, "", 1),
    ]
    assert row.jobs[0][0] == row.jobs[1][0]
    assert row.jobs[0][0].tasks == ("gsm8k", "basic_arithmetic")


def test_the_users_settings_apply_to_both_but_for_the_tasks() -> None:
    chosen = Choice(
        methods=("lora",), settings={"evaluation.items": 7, "evaluation.tasks": ["gsm8k"]}
    )
    (row,) = grid(suite(), "embedded", chosen)
    assert [(e.tasks, e.items) for _, e in row.jobs[:2]] == [
        (("gsm8k",), 7),
        (("piqa", "wikipedia_text"), 7),
    ]


def test_they_are_columns_and_in_no_average() -> None:
    shown = suite().as_in(suite().profiles["embedded"])
    assert [column.key for column in shown.shown_columns if column.untouched] == [
        "piqa",
        "wikipedia_text",
    ]
    (average,) = shown.shown_averages
    assert average.columns == ("gsm8k", "basic_arithmetic")
    assert shown.as_in(suite().profiles["embedded"]) == shown


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"trained": "apart"}, "one model to score"),
        ({"untouched": {"tasks": ["gsm8k"]}}, "are trained on"),
        ({"untouched": {"tasks": []}}, "at least 1 item"),
    ],
)
def test_what_contradicts_itself_is_refused(over: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        suite(**over)


def test_tuning_does_not_read_them() -> None:
    choice = Choice()
    made = plan(Request.of(suite(), "embedded", choice), choice)
    assert [column.key for column in made.columns] == ["gsm8k", "basic_arithmetic"]
    for tunable in made.rows:
        assert [scored.tasks for _, scored in tunable.row.jobs] == [
            ("gsm8k", "basic_arithmetic")
        ] * 2
        assert not made.notes


def test_their_runs_do_not_cost_a_second_training() -> None:
    plain = suite(untouched=None, sizes={"small": {"evaluation": {"items": 20}}})
    costs = Costs(find_gpu("a100-80gb"), Counts())
    both, alone = (
        costs.row(grid(made, "embedded", Choice(methods=("lora",)))[0]) for made in (suite(), plain)
    )
    assert both.training_hours == alone.training_hours
    assert both.training_tokens == alone.training_tokens
    assert both.gpu_hours > alone.gpu_hours


def table(bench: Bench, trained: tuple[int, ...] = (0, 1), *, drawn: bool = False) -> Table:
    """The base right on 50 of 60 untouched items, LoRA on 20 of the same; their own alike.

    Args:
        bench: stores the results.
        trained: seeds that rows which train have finished.
        drawn: whether each seed has items of its own.
    """
    made = suite(rows=["none", "lora", "krona"])
    rows = grid(made, "embedded", Choice())
    cells = []
    for row in rows:
        right = {"none": 50, "lora": 20, "krona": 50}[row.spec.method]
        results = {}
        for seed, (training, _) in zip(row.seeds, row.jobs[:: row.parts], strict=True):
            if row.spec.method != "none" and seed not in trained:
                continue
            of = str(seed) if drawn else ""
            alike = items([1, 0] * 30, prefix=of)
            own = {"gsm8k": alike, "basic_arithmetic": alike}
            kept = {"piqa": items([1] * right + [0] * (60 - right), prefix=of)}
            of_training = {"id": f"{row.spec.method}{seed}", "spec": training}
            results[seed] = [bench.result(part, training=of_training) for part in (own, kept)]
        cells.append(Cells(row, results))
    profile = made.profiles["embedded"]
    request = Request(made.as_in(profile), "embedded", profile, "", rows)
    return make_table(request, cells, bench.store)


def test_what_is_forgotten_is_held_to_the_base(bench: Bench) -> None:
    made = table(bench)
    rows = {row.method: row for row in made.rows if row.method}
    assert rows["lora"].cells["piqa"].differs
    assert not rows["krona"].cells["piqa"].differs
    assert not rows["lora"].cells["gsm8k"].differs
    assert rows["lora"].averages["Avg."].mean == 50
    assert "No row trains on PIQA" in " ".join(made.notes["Scores"])


def test_an_unfinished_table_is_held_to_no_base_of_other_seeds(bench: Bench) -> None:
    made = table(bench, trained=(0,), drawn=True)
    rows = {row.method: row for row in made.rows if row.method}
    assert not rows["lora"].cells["piqa"].differs
    assert "No row trains on" not in " ".join(made.notes["Scores"])
