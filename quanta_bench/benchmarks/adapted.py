"""Scoring and answering with the adapters of methods that merge, against the base model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from quanta_bench.benchmark import Benchmark, Case, Conditions, Outcome, at_most
from quanta_bench.benchmarks.materials import PROFILE, Materials, make, row_settings
from quanta_bench.errors import UsageError
from quanta_bench.evaluation import evaluators
from quanta_bench.method import Method
from quanta_bench.models.capabilities import can_pack
from quanta_bench.models.held_products import still
from quanta_bench.models.precision import dtype_name
from quanta_bench.models.stacking import twin
from quanta_bench.plugins import METHODS
from quanta_bench.spec import EvaluationSpec
from quanta_bench.task import Example
from quanta_bench.timing import interleave, time_ratio

BASE = "base"
QUICK = ("lora", "dora")
MAX_RATIO = 1.1

TASKS = {"arc_easy": "choice-text", "basic_arithmetic": "generate"}
"""A task whose candidates are scored, and one with short answers, each with its protocol."""


class Adapted(Benchmark):
    """Whole evaluations with the adapters of the embedded profile's rows, and with the base."""

    name = "adapted"
    title = "scoring and answering with each method that merges against the base"
    reads = True
    place = 55

    def run(self, conditions: Conditions) -> Outcome:
        """A case for each task, in this machine's dtype and in float32; quick: float32 alone."""
        materials = Materials.of(conditions)
        dtypes = conditions.choose((materials.dtype, torch.float32), quick=(torch.float32,))
        items, rounds = conditions.choose((16, 4), quick=(4, 2))
        cases = []
        for dtype in dict.fromkeys(dtypes):
            models = Models(materials, dtype, QUICK if conditions.quick else [*METHODS])
            for task in TASKS:
                conditions.tell(f"{task} in {dtype}: {rounds} rounds of {items} items")
                cases.append(compare(models, task, items, rounds))
        return Outcome(
            cases=cases,
            notes=[
                "A sample is an evaluation of all items. What a method derives from its weights "
                "is made anew in each."
            ],
        )


class Models:
    """The base model, and a twin of it for each method that merges, adapted by its row.

    Args:
        materials: model and data.
        dtype: of the base.
        names: the methods. Those that do not merge, train the base itself or have no row in the
            embedded profile are left out.
    """

    def __init__(self, materials: Materials, dtype: torch.dtype, names: Sequence[str]) -> None:
        self.materials = materials
        self.dtype = dtype
        self.base = materials.load(dtype)
        self.packed = can_pack(self.base.model)
        self.notes: list[str] = []
        self.models: dict[str, tuple[Method[Any], nn.Module]] = {}
        self.models[BASE] = make("none"), self.base.model
        for name in names:
            if PROFILE not in METHODS.get(name).rows:
                continue
            method = make(name, row_settings(name))
            if method.trains and method.mergeable and method.base_precision == "frozen":
                self._add(method)

    def _add(self, method: Method[Any]) -> None:
        label = method.rows[PROFILE].label
        try:
            model = method.adapt(twin(self.base.model), 0).to(self.materials.device).eval()
        except UsageError as error:
            self.notes.append(f"{label} does not fit this model: {error}")
            return
        self.models[label] = method, model

    def evaluation(self, label: str, task: str) -> Callable[[Sequence[Example]], None]:
        """What evaluates the model of a label on items of a task."""
        method, model = self.models[label]
        found, _ = self.materials.items(task, "test", 1)
        context = evaluators.Context(
            model,
            self.base.tokenizer,
            EvaluationSpec(tasks=(task,), protocol=TASKS[task]),
            packed=self.packed and bool(method.cacheable),
            cached=bool(method.cacheable),
            device=self.materials.device,
            advance=lambda count: None,
        )

        def evaluate(examples: Sequence[Example]) -> None:
            with self.materials.autocast(self.dtype), still(method, model):
                evaluators.evaluate(context, found, examples)

        return evaluate


def compare(models: Models, task: str, items: int, rounds: int) -> Case:
    """Time an evaluation with each model, in turn."""
    _, examples = models.materials.items(task, "test", items)
    evaluations = {label: models.evaluation(label, task) for label in models.models}

    def side(label: str) -> Callable[[], None]:
        return lambda: evaluations[label](examples)

    for evaluate in evaluations.values():
        evaluate(examples[:1])
    base, *others = interleave(
        {label: side(label) for label in evaluations},
        rounds=rounds,
        warmup=0,
        work=items,
        unit="items",
    )
    return Case(
        title=f"{task}, {dtype_name(models.dtype)}",
        sides=[base, *others],
        findings=[time_ratio(other, base, target=at_most(MAX_RATIO)) for other in others],
        notes=models.notes,
    )
