"""One training step of each method against LoRA's, on the same batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from quanta_bench.benchmark import Benchmark, Case, Conditions, Outcome, at_most
from quanta_bench.benchmarks.materials import PROFILE, Materials, adapted, make, row_settings
from quanta_bench.benchmarks.steps import Step, collated, stepper
from quanta_bench.data.pools import Pools
from quanta_bench.errors import UsageError
from quanta_bench.method import Row
from quanta_bench.models.capabilities import can_pack
from quanta_bench.plugins import METHODS
from quanta_bench.timing import interleave, time_ratio
from quanta_bench.training.datamodule import BenchData


class Variant(NamedTuple):
    """A method with settings.

    Attributes:
        method: its registered name.
        label: its label; empty for its row's label.
        settings: settings that override those of its row.
    """

    method: str
    label: str = ""
    settings: Mapping[str, Any] = {}


BASELINE = Variant("lora")
OTHERS: Sequence[Variant] = (
    Variant("quanta"),
    Variant("quanta", "QuanTA 9-8-8", {"dims": (9, 8, 8)}),
    Variant("dora"),
    Variant("krona"),
    Variant("mora"),
    Variant("loretta_rep"),
    Variant("loretta_adp"),
    Variant("series"),
    Variant("parallel"),
    Variant("qtha"),
)
MAX_RATIO = 1.15


class Methods(Benchmark):
    """Optimiser steps of every method, interleaved."""

    name = "methods"
    title = "a training step of each method against LoRA r=8"
    reads = True
    place = 30

    def run(self, conditions: Conditions) -> Outcome:
        """One case: the methods with the settings of their rows in the embedded profile."""
        variants = conditions.choose(OTHERS, quick=OTHERS[:1])
        rounds = conditions.choose(6, quick=2)
        return Outcome(cases=[compare(Materials.of(conditions), variants, rounds, conditions)])


def compare(
    materials: Materials, variants: Sequence[Variant], rounds: int, conditions: Conditions
) -> Case:
    """Time a step of each variant relative to the baseline."""
    spec = materials.spec(BASELINE.method, row_settings(BASELINE.method), train_items=rounds)
    base = materials.load()
    packed = can_pack(base.model)
    data = BenchData(spec, Pools(), base.tokenizer, packed=packed)
    batches = collated(data, materials.device)
    sides: dict[str, Step] = {}
    notes = []
    for variant in (BASELINE, *variants):
        label = (
            variant.label
            or METHODS.get(variant.method).rows.get(PROFILE, Row(variant.method)).label
        )
        conditions.tell(f"loading {label}")
        method = make(variant.method, {**row_settings(variant.method), **variant.settings})
        try:
            # Each method gets its own base, which it changes in place.
            model = adapted(materials.load(), method, materials.device)
        except UsageError as error:
            notes.append(f"{label} does not fit this model: {error}")
            continue
        if packed and not method.cacheable:
            notes.append(f"{label} does not support packed candidates: {method.cacheable.reason}")
            continue
        sides[label] = stepper(model, method, spec, data, batches, materials)
    conditions.tell(f"{len(sides)} methods in {rounds} rounds")
    baseline, *others = interleave(sides, rounds=rounds)
    return Case(
        title=f"8 items of the mixture, {materials.precision['base']}",
        sides=[baseline, *others],
        findings=[time_ratio(other, baseline, target=at_most(MAX_RATIO)) for other in others],
        notes=notes,
    )
