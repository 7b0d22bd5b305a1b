"""The loss in training as a column: what it is the mean of, its error, and how rows are paired."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from results_by_hand import Bench, items, sentences, suite
from scipy import stats

from quanta_bench.report import render, training_loss
from quanta_bench.report.table import Table
from quanta_bench.results.records import Result
from quanta_bench.spec import Seeds, TrainingSpec
from quanta_bench.suites.schema import Suite
from quanta_bench.tuning import trials

KEY = "boolq/training_loss"
COLUMNS = [{"task": "boolq", "metric": "training_loss", "title": "Loss"}, "boolq"]
STEPS = [9.0, 9.0, 9.0, 1.0, 2.0, 4.0]


def with_losses(bench: Bench, losses: list[float], seed: int = 0, **spec: Any) -> Result:
    made = TrainingSpec(
        method="lora", tasks=("boolq",), batch_size=8, seeds=Seeds(order=seed, sample=seed), **spec
    )
    training = {"losses": losses, "steps": len(losses), "train_items": 44, "spec": made}
    return bench.result({"boolq": items([1, 0, 1])}, training=training)


def columns(*rows: Any) -> Suite:
    made = suite(*rows, tasks=["boolq"]).model_dump(mode="json")
    return Suite.model_validate(made | {"columns": COLUMNS})


def test_it_is_the_mean_over_the_second_half_of_the_steps(bench: Bench) -> None:
    result = with_losses(bench, STEPS)
    assert training_loss.losses(result) == [1.0, 2.0, 4.0]
    table = bench.table(columns(), {0: result})
    value = table.rows[-1].cells[KEY]
    assert value.mean == pytest.approx(7 / 3)
    error = np.std([1, 2, 4], ddof=1) / math.sqrt(3)
    assert value.standard_error == pytest.approx(error)
    assert value.margin == pytest.approx(stats.t.ppf(0.975, 2) * error)
    assert value.seed_errors[0] == pytest.approx(error)
    assert render.cell(value).startswith("2.333 ± ")
    column = table.columns[0]
    assert (column.title, column.items, column.lower_is_better) == ("Loss", 24, True)
    assert table.rows[0].label == "Chance"
    assert KEY not in table.rows[0].cells
    assert any(note.startswith("Loss: the mean over the second half") for note in sentences(table))


def test_a_smaller_last_batch_and_odd_numbers_of_steps(bench: Bench) -> None:
    assert training_loss.items(with_losses(bench, [1.0])) == 8
    assert training_loss.losses(with_losses(bench, [5.0, 1.0, 2.0])) == [1.0, 2.0]
    assert training_loss.items(with_losses(bench, [1.0] * 20)) == 44


def test_seeds_with_batches_of_their_own_are_independent(bench: Bench) -> None:
    results = {seed: with_losses(bench, STEPS, seed) for seed in (0, 1)}
    value = bench.table(columns(), results).rows[-1].cells[KEY]
    each = np.std([1, 2, 4], ddof=1) / math.sqrt(3)
    assert value.standard_error == pytest.approx(each / math.sqrt(2))
    assert value.seeds == {0: pytest.approx(7 / 3), 1: pytest.approx(7 / 3)}


def two_rows(bench: Bench, **other: Any) -> Table:
    """LoRA, and DoRA, whose loss is 0.1 below it in every step, up to a hundredth."""
    near = [loss - 0.1 + 0.01 * (-1) ** n for n, loss in enumerate(STEPS)]
    lora = {seed: with_losses(bench, STEPS, seed) for seed in (0, 1, 2)}
    dora = {seed: with_losses(bench, near, seed, **other) for seed in (0, 1, 2)}
    return bench.table(columns("lora", "dora"), lora, dora)


def test_rows_are_paired_step_by_step(bench: Bench) -> None:
    """A tenth of a nat shows through batches that differ by three."""
    lora, dora = two_rows(bench).rows[-2:]
    assert dora.cells[KEY].differs
    assert not lora.cells[KEY].differs
    assert (dora.cells[KEY].margin or 0) > 1


@pytest.mark.parametrize("other", [{"batch_size": 4}, {"epochs": 2}, {"max_length": 128}])
def test_other_batches_are_not_paired(bench: Bench, other: dict[str, Any]) -> None:
    other = {"batch_size": 8, **other}
    made = with_losses(bench, STEPS)
    spec = made.training.spec.model_copy(update=other)
    training = made.training.model_copy(update={"spec": spec})
    changed = made.model_copy(update={"training": training})
    table = bench.table(columns("lora", "dora"), {0: made}, {0: changed})
    assert table.rows[-1].cells[KEY].p_holm is None
    assert table.rows[-1].cells["boolq"].p_holm is not None


def test_a_row_that_does_not_train_has_none(bench: Bench) -> None:
    base = bench.result(
        {"boolq": items([1, 0, 1])}, training={"losses": [], "steps": 0, "train_items": 0}
    )
    table = bench.table(columns("none", "lora"), {0: base}, {0: with_losses(bench, STEPS)})
    assert KEY not in table.rows[1].cells
    assert "boolq" in table.rows[1].cells
    assert "Loss" in render.as_markdown(table)


def test_it_chooses_no_learning_rate() -> None:
    made = columns()
    kept, notes = trials._columns(made, ())
    assert [column.key for column in kept] == ["boolq"] or notes
    assert KEY not in [column.key for column in kept]
