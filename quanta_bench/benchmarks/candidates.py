"""Training over candidates: each prompt computed once for all of them or once per candidate."""

from __future__ import annotations

from quanta_bench.benchmark import Benchmark, Case, Conditions, Outcome, at_least
from quanta_bench.benchmarks.materials import Materials, adapted, make, row_settings
from quanta_bench.benchmarks.steps import collated, stepper
from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError
from quanta_bench.models.capabilities import can_pack
from quanta_bench.timing import interleave, speed_ratio
from quanta_bench.training.datamodule import BenchData

METHOD = "lora"


class Candidates(Benchmark):
    """Optimiser steps over the same items, with the batches that suit each layout."""

    name = "candidates"
    title = "training over candidates: packed, a prompt computed once, against flat"
    reads = True
    place = 20

    def run(self, conditions: Conditions) -> Outcome:
        """One case: one pass over a small mixture, alternating step by step."""
        materials = Materials.of(conditions)
        return Outcome(cases=[compare(materials, conditions.choose(20, quick=2))])


def compare(materials: Materials, items_a_task: int) -> Case:
    """Items per second, packed and flat.

    Raises:
        BenchError: the model does not support packed candidates.
    """
    spec = materials.spec(METHOD, row_settings(METHOD), train_items=items_a_task)
    base = materials.load()
    if not can_pack(base.model):
        raise BenchError(
            "This model does not support packed candidates, so there is nothing to compare."
        )
    method = make(METHOD)
    model = adapted(base, method, materials.device)
    sides = {}
    for name, packed in {"packed": True, "flat": False}.items():
        data = BenchData(spec, Pools(), base.tokenizer, packed=packed)
        batches = collated(data, materials.device)
        sides[name] = stepper(model, method, spec, data, batches, materials)
        steps, items = data.steps, len(data.train_items)
    # Each round is a different step; all rounds together are one pass over the items.
    warm, rounds = 1, steps
    packed_side, flat = interleave(
        sides, rounds=rounds, warmup=warm, work=items / rounds, unit="items"
    )
    return Case(
        title=f"{items} items of the mixture, LoRA r=8, {materials.precision['base']}",
        sides=[packed_side, flat],
        findings=[speed_ratio(packed_side, flat, by="total", target=at_least(1.6))],
    )
