"""Training over candidates: each prompt computed once for all of them, or once for each."""

from __future__ import annotations

from quanta_bench.benchmark import Benchmark, Case, Conditions, Outcome, at_least
from quanta_bench.benchmarks.materials import Materials, adapted, make, own_settings
from quanta_bench.benchmarks.steps import collated, stepper
from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError
from quanta_bench.models.capabilities import can_pack
from quanta_bench.timing import interleave, speed_ratio
from quanta_bench.training.datamodule import BenchData

METHOD = "lora"


class Candidates(Benchmark):
    """Optimiser steps over the same items, each layout with the batches that suit it."""

    name = "candidates"
    title = "training over candidates: packed, a prompt computed once, against flat"
    reads = True
    place = 20

    def run(self, conditions: Conditions) -> Outcome:
        """One case: all items of a small mixture once, in turns step by step."""
        materials = Materials.of(conditions)
        return Outcome(cases=[compare(materials, conditions.choose(20, quick=2))])


def compare(materials: Materials, items_a_task: int) -> Case:
    """Items a second, packed and flat.

    Raises:
        BenchError: the model takes no packed candidates.
    """
    spec = materials.spec(METHOD, own_settings(METHOD), train_items=items_a_task)
    base = materials.load()
    if not can_pack(base.model):
        raise BenchError("Candidates cannot be packed with this model, so there is one way only.")
    method = make(METHOD)
    model = adapted(base, method, materials.device)
    sides = {}
    for name, packed in {"packed": True, "flat": False}.items():
        data = BenchData(spec, Pools(), base.tokenizer, packed=packed)
        batches = collated(data, materials.device)
        sides[name] = stepper(model, method, spec, data, batches, materials)
        steps, items = data.steps, len(data.train_items)
    # Every round is another step; the rounds together are all items once, whatever the order.
    warm, rounds = 1, steps
    packed_side, flat = interleave(
        sides, rounds=rounds, warmup=warm, work=items / rounds, unit="items"
    )
    return Case(
        title=f"{items} items of the mixture, LoRA r=8, {materials.precision['base']}",
        sides=[packed_side, flat],
        findings=[speed_ratio(packed_side, flat, by="total", target=at_least(1.6))],
    )
