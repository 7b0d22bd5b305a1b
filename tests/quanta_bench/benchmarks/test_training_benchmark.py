"""The training benchmark on a tiny model, and what it stands on."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from quanta_bench.benchmark import Conditions
from quanta_bench.benchmarks import reference, training
from quanta_bench.benchmarks.materials import Materials, lengths, parts
from quanta_bench.data.pools import Pools
from quanta_bench.training.datamodule import BenchData


def tell(text: str) -> None:
    assert text


def test_both_sides_train_on_the_same_tokens_in_parts_that_take_turns(
    conditions: Conditions, exact: None
) -> None:
    case = training.speed(Materials.of(conditions), 2, tell)
    ours, theirs, grouped = case.sides
    assert len(ours.seconds) == len(theirs.seconds) == len(grouped.seconds) == 2
    assert sum(ours.work) == pytest.approx(sum(theirs.work))
    assert [finding.title for finding in case.findings] == [
        "tokens/s, ours / Trainer + peft",
        "tokens/s, ours / Trainer + peft, grouped by length",
    ]
    assert all(finding.value > 0 for finding in case.findings)


def test_the_loss_curves_are_the_same(conditions: Conditions) -> None:
    case = training.curve(Materials.of(conditions), 2, tell)
    (finding,) = case.findings
    assert case.title == "loss of 2 steps, float32"
    assert finding.met
    assert finding.value < 1e-4


def test_other_losses_are_found_to_differ() -> None:
    assert training.largest_difference([1.0, 2.0], [1.0, 1.6]) == pytest.approx(0.25)
    assert training.largest_difference([1.0], [1.0, 2.0]) == math.inf


def test_peaks_are_measured_in_processes_of_their_own(
    conditions: Conditions, exact: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def here(function: Any, *arguments: Any) -> Any:
        # Tests of processes stand elsewhere; two more would take longer than all the rest.
        started.append(function.__name__)
        return function(*arguments)

    def ran(work: Callable[[], object]) -> int:
        # In one process the second peak may hide in memory that the first has freed.
        work()
        return 1000 * len(started)

    monkeypatch.setattr(training, "in_own_process", here)
    monkeypatch.setattr(training, "peak_above", ran)
    case = training.memory(Materials.of(conditions), 1, tell)
    assert started == ["our_peak", "their_peak"]
    assert [side.peak_bytes for side in case.sides] == [1000, 2000]
    assert case.findings[0].value == 0.5


def test_trainers_precision_is_the_faster_one(
    conditions: Conditions, exact: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    materials = Materials.of(conditions)
    data = BenchData(training.answers(materials, 1), Pools(), materials.tokenizer(), packed=False)
    spec = training.answers(materials, 1)
    # Where the base is not bfloat16, there is nothing to choose.
    assert not reference.faster_with_autocast(materials, data.train_items, spec)
    precision = {"base": "bfloat16", "arithmetic": "bf16-mixed"}
    monkeypatch.setattr(Materials, "precision", precision)
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(reference.time, "perf_counter", lambda: clock.now)
    for seconds in ({True: 1.0, False: 2.0}, {True: 2.0, False: 1.0}):

        def made(*_: Any, autocast: bool, seconds: Any = seconds, **__: Any) -> Any:
            def train() -> None:
                clock.now += seconds[autocast]

            return SimpleNamespace(train=train)

        monkeypatch.setattr(reference, "trainer", made)
        found = reference.faster_with_autocast(materials, data.train_items, spec)
        assert found is (seconds[True] < seconds[False])


def test_the_reference_has_the_answers_as_its_only_labels(conditions: Conditions) -> None:
    materials = Materials.of(conditions)
    tokenizer = materials.tokenizer()
    data = BenchData(training.answers(materials, 1), Pools(), tokenizer, packed=False)
    rows = reference.features(data.train_items)
    assert len(rows) == len(data.train_items) == 8
    for row, item in zip(rows, data.train_items, strict=True):
        said = [label for label in row["labels"] if label != reference.IGNORED]
        assert tuple(said) == item.candidates[0]
        assert tokenizer.decode(row["input_ids"]).endswith(tokenizer.decode(said))
    assert lengths(data.train_items) == sum(len(row["input_ids"]) for row in rows)


def test_the_reference_trains_what_our_lora_trains(conditions: Conditions) -> None:
    materials = Materials.of(conditions)
    spec = training.answers(materials, 1)
    ours = training.Ours(materials, spec, torch.float32)
    theirs = reference.with_lora(materials.load(torch.float32))
    shapes = [
        {name: (value.shape, value.dtype) for name, value in training.trained(model)}
        for model in (ours.model, theirs)
    ]
    assert shapes[0] == shapes[1]


def test_a_run_is_cut_into_parts_that_end_with_it() -> None:
    assert parts(50, 10) == list(range(5, 51, 5))
    assert parts(6, 10) == [1, 2, 3, 4, 5, 6]
    assert parts(7, 3) == [2, 5, 7]
