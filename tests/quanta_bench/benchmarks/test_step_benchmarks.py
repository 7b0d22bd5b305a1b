"""The benchmarks of single training steps on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from quanta_bench.benchmark import Conditions
from quanta_bench.benchmarks import candidates, methods
from quanta_bench.benchmarks.materials import Materials, adapted, make
from quanta_bench.benchmarks.steps import collated, stepper
from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError
from quanta_bench.training import trainer
from quanta_bench.training.datamodule import BenchData


def test_packed_and_flat_train_on_the_same_items(conditions: Conditions) -> None:
    case = candidates.compare(Materials.of(conditions), 1)
    packed, flat = case.sides
    assert (packed.name, flat.name) == ("packed", "flat")
    assert sum(packed.work) == sum(flat.work) == 8
    (finding,) = case.findings
    assert finding.title == "items/s, packed / flat"
    assert finding.value > 0


def test_without_packing_there_is_nothing_to_compare(
    conditions: Conditions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "can_pack", lambda model: False)
    with pytest.raises(BenchError, match="does not support packed candidates"):
        candidates.compare(Materials.of(conditions), 1)


def test_a_method_that_does_not_fit_is_said_and_the_others_are_compared(
    conditions: Conditions,
) -> None:
    kinds = (
        methods.Variant("quanta", "QuanTA 4-4-4", {"dims": (4, 4, 4)}),
        methods.Variant("quanta", "QuanTA 9-8-8", {"dims": (9, 8, 8)}),
        methods.Variant("dora"),
    )
    case = methods.compare(Materials.of(conditions), kinds, 1, conditions)
    assert [side.name for side in case.sides] == ["LoRA r=8", "QuanTA 4-4-4", "DoRA r=8"]
    assert [finding.title for finding in case.findings] == [
        "time, QuanTA 4-4-4 / LoRA r=8",
        "time, DoRA r=8 / LoRA r=8",
    ]
    (note,) = case.notes
    assert note.startswith("QuanTA 9-8-8 does not fit this model")


def test_a_step_is_the_one_that_a_run_does(
    conditions: Conditions, exact: None, tmp_path: Path
) -> None:
    materials = Materials.of(conditions)
    settings = {"r": 2, "target_modules": ("q_proj",)}
    spec = materials.spec("lora", settings, train_items=2, schedule="constant", warmup=0.0)
    weights = []
    for whole in (False, True):
        base = materials.load()
        method = make("lora", settings)
        model = adapted(base, method, materials.device)
        data = BenchData(spec, Pools(), base.tokenizer, packed=True)
        if whole:
            trainer.train(
                model,
                method,
                spec,
                data,
                tmp_path,
                device=materials.device,
                precision="32-true",
                advance=lambda done, steps: None,
            )
        else:
            batches = collated(data, materials.device)
            step = stepper(model, method, spec, data, batches, materials)
            for _ in range(data.steps):
                step()
        weights.append([value.detach().clone() for value in method.trainable(model).values()])
    assert data.steps == 2
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other)
