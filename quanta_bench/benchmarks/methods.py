"""One training step of each method, on the same batches, beside LoRA's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from quanta_bench.benchmark import Benchmark, Case, Conditions, Outcome, at_most
from quanta_bench.benchmarks.materials import PROFILE, Materials, adapted, make, own_settings
from quanta_bench.benchmarks.steps import Step, collated, stepper
from quanta_bench.data.pools import Pools
from quanta_bench.errors import UsageError
from quanta_bench.method import Row
from quanta_bench.models.capabilities import can_pack
from quanta_bench.plugins import METHODS
from quanta_bench.timing import interleave, time_ratio
from quanta_bench.training.datamodule import BenchData


class Kind(NamedTuple):
    """A method with settings.

    Attributes:
        method: its registered name.
        label: what it is called; empty for its row's label.
        settings: over those of its row.
    """

    method: str
    label: str = ""
    settings: Mapping[str, Any] = {}


FIRST = Kind("lora")
OTHERS: Sequence[Kind] = (
    Kind("quanta"),
    Kind("quanta", "QuanTA 9-8-8", {"dims": (9, 8, 8)}),
    Kind("dora"),
    Kind("krona"),
    Kind("loretta_rep"),
    Kind("loretta_adp"),
    Kind("series"),
    Kind("parallel"),
)
AT_MOST = 1.15


class Methods(Benchmark):
    """Optimiser steps of every method, in turns."""

    name = "methods"
    title = "a training step of each method against LoRA r=8"
    reads = True
    place = 30

    def run(self, conditions: Conditions) -> Outcome:
        """One case: the methods with the settings of their rows in the small profile."""
        kinds = conditions.choose(OTHERS, quick=OTHERS[:1])
        rounds = conditions.choose(6, quick=2)
        return Outcome(cases=[compare(Materials.of(conditions), kinds, rounds, conditions)])


def compare(
    materials: Materials, kinds: Sequence[Kind], rounds: int, conditions: Conditions
) -> Case:
    """Time a step of some methods relative to the first."""
    spec = materials.spec(FIRST.method, own_settings(FIRST.method), train_items=rounds)
    base = materials.load()
    packed = can_pack(base.model)
    data = BenchData(spec, Pools(), base.tokenizer, packed=packed)
    batches = collated(data, materials.device)
    sides: dict[str, Step] = {}
    notes = []
    for kind in (FIRST, *kinds):
        label = kind.label or METHODS.get(kind.method).rows.get(PROFILE, Row(kind.method)).label
        conditions.tell(f"loading {label}")
        method = make(kind.method, {**own_settings(kind.method), **kind.settings})
        try:
            # A base of its own for each: methods change it in place.
            model = adapted(materials.load(), method, materials.device)
        except UsageError as error:
            notes.append(f"{label} does not fit this model: {error}")
            continue
        if packed and not method.cacheable:
            notes.append(f"{label} takes no packed candidates: {method.cacheable.reason}")
            continue
        sides[label] = stepper(model, method, spec, data, batches, materials)
    conditions.tell(f"{len(sides)} methods in {rounds} rounds")
    first, *others = interleave(sides, rounds=rounds)
    return Case(
        title=f"8 items of the mixture, {materials.precision['base']}",
        sides=[first, *others],
        findings=[time_ratio(other, first, target=at_most(AT_MOST)) for other in others],
        notes=notes,
    )
