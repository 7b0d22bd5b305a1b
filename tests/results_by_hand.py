"""Results made by hand, and the tables that come of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from quanta_bench.evaluation import stats
from quanta_bench.report import render
from quanta_bench.report.table import Table
from quanta_bench.report.tables import make_table
from quanta_bench.results.provenance import code_versions
from quanta_bench.results.records import Environment, Result, TaskResult, TrainingRecord
from quanta_bench.results.store import Store
from quanta_bench.runs.cells import Cells
from quanta_bench.spec import EvaluationSpec, TrainingSpec
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.grid import grid
from quanta_bench.suites.request import Request
from quanta_bench.suites.schema import Suite

BASE, TRAINED = 1000, 250

UNUSABLE = "its package is not installed"
"""Why a row with the label Beam cannot run."""


def suite(*rows: Any, tasks: Sequence[str] = ("boolq", "piqa"), **profile: Any) -> Suite:
    return Suite(
        name="t",
        title="T_1 & 100%",
        tasks=tuple(tasks),
        profiles={"embedded": {"rows": rows or ("lora",), **profile}},
    )


@dataclass
class Item:
    """One judged item."""

    id: str
    group: str
    accuracy: float


def items(scores: Sequence[float], groups: Sequence[str] | None = None, prefix: str = "") -> Any:
    names = groups or [f"g{n}" for n in range(len(scores))]
    return [
        Item(f"{prefix}{n}", group, score)
        for n, (score, group) in enumerate(zip(scores, names, strict=True))
    ]


class Bench:
    """Makes a table of results that are given item by item.

    Args:
        root: the results folder.
        gold: right answers of the items, 0 or 1, in turn; if given, predictions hold answers too.
    """

    def __init__(self, root: Path, gold: Sequence[int] = ()) -> None:
        self.gold = gold
        self.store = Store(root)
        self._runs = 0

    def result(self, scored: dict[str, list[Item]], **over: Any) -> Result:
        self._runs += 1
        environment = Environment(
            packages={"torch": "1"},
            python="3",
            platform="p",
            device="d",
            threads=1,
            git_commit="c",
        )
        evaluation = {"tasks": tuple(scored), **over.pop("evaluation", {})}
        record: dict[str, Any] = {
            "id": f"training{self._runs}",
            "spec": TrainingSpec(method="lora", tasks=tuple(scored), learning_rate=0.5),
            "model": "m",
            "model_fingerprint": "f",
            "data": {},
            "base_parameters": BASE,
            "trainable_parameters": TRAINED,
            "added_parameters": TRAINED,
            "precision": {"base": "float32", "arithmetic": "32-true"},
            "steps": 10,
            "train_items": 40,
            "validation_items": 20,
            "environment": environment,
            "code": code_versions("lora", scored),
            **over.pop("training", {}),
        }
        tasks = {}
        for name, judged in scored.items():
            values = [item.accuracy for item in judged]
            error = stats.clustered_standard_error(values, [item.group for item in judged])
            tasks[name] = TaskResult(
                title=name.upper(),
                kind="choice",
                metric="accuracy",
                metrics={"accuracy": float(np.mean(values))},
                items=len(judged),
                groups=len({item.group for item in judged}),
                standard_error=None if math.isnan(error) else error,
                chance=0.5,
                seconds=1.0,
                data={},
            )
        protocol = {
            "put": "choice-text",
            "loss": "candidates",
            "trained_as": "choice-text",
            "normaliser": "token_mean",
            **over.pop("protocol", {}),
        }
        result = Result(
            run=f"run{self._runs}",
            training=TrainingRecord(**record),
            protocol=protocol,
            evaluation=EvaluationSpec(**evaluation),
            tasks=tasks,
            evaluation_seconds=1.0,
            evaluation_environment=environment,
            **{"code": code_versions("", [*scored, *over.get("forgetting", ())]), **over},
        )
        lines = [
            {
                "task": name,
                "id": i.id,
                "group": i.group,
                "accuracy": i.accuracy,
                **self.answer(n, i),
            }
            for name, judged in scored.items()
            for n, i in enumerate(judged)
        ]
        return self.store.write_run(result, lines)

    def answer(self, number: int, item: Item) -> dict[str, int]:
        """What an item was answered, and what was right."""
        if not self.gold:
            return {}
        gold = self.gold[number % len(self.gold)]
        return {"prediction": gold if item.accuracy else 1 - gold, "gold": gold}

    def table(self, made: Suite, *rows: dict[int, Result]) -> Table:
        seeds = tuple(sorted({seed for row in rows for seed in row})) or (0,)
        found = [
            replace(row, missing=UNUSABLE) if row.spec.label == "Beam" else row
            for row in grid(made, "embedded", Choice(seeds=seeds))
        ]
        cells = [
            Cells(row, {seed: [result] for seed, result in results.items()})
            for row, results in zip(found, rows, strict=True)
        ]
        return make_table(Request.of(made, "embedded"), cells, self.store)


def sentences(table: Table) -> list[str]:
    """The notes of all headings."""
    return [note for notes in table.notes.values() for note in notes]


def drawn(table: Table, width: int = 300) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(render.on_screen(table))
    return captured.get()


def two_seeds(bench: Bench) -> Table:
    first = bench.result({"boolq": items([1, 1, 0, 0]), "piqa": items([1, 1, 1, 0])})
    second = bench.result({"boolq": items([1, 0, 0, 0]), "piqa": items([1, 1, 1, 1])})
    return bench.table(suite(), {0: first, 1: second})


TWO_MODELS = (
    {"method": "lora", "model": "m-7b"},
    {"method": "lora", "model": "m-13b"},
    {"method": "dora", "model": "m-13b", "label": "Beam"},
)


def two_models(bench: Bench) -> Table:
    one = {"boolq": items([1, 0]), "piqa": items([1, 0])}
    other = TrainingSpec(method="lora", tasks=tuple(one), learning_rate=0.25)
    results = bench.result(one), bench.result(one, training={"spec": other})
    return bench.table(suite(*TWO_MODELS), *({0: result} for result in results), {})
