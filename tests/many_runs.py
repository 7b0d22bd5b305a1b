"""Results folders with many finished runs, of which one a method was computed."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quanta_bench.data.pools import Pools
from quanta_bench.evaluation import stats
from quanta_bench.results.integrity import sealed
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.identity import Identity, PlannedRow, PlannedRun
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.suites.grid import GridRow


def write_grid(path: Path, data: Path, model: Path, *, rows: int, seeds: int) -> Path:
    """Write a suite of a base and so many rows of LoRA, each with so many seeds."""
    tuned = "\n".join(
        f'      - {{method: lora, label: "LoRA {n}", settings: {{r: 2}}, '
        f"training: {{learning_rate: {(n + 1) / 1000}}}}}"
        for n in range(rows)
    )
    path.write_text(
        f"""
name: many
title: Many runs
tasks: ["jsonl:{data}"]
profiles:
  embedded:
    model: .
    model_source: "local:{model}"
    seeds: [{", ".join(map(str, range(seeds)))}]
    training: {{batch_size: 4, validations: 1, precision: float32}}
    rows:
      - none
{tuned}
"""
    )
    return path


def finish(rows: Sequence[GridRow], store: Store) -> int:
    """Finish every run of a grid: compute the first of each method, copy it with other answers.

    Returns:
        How many runs there are.
    """
    runner = Runner(store, Silent(), Pools())
    templates: dict[str, tuple[Result, list[dict[str, Any]]]] = {}
    done: set[str] = set()
    for row in rows:
        for _, planned in PlannedRow.of(row).runs:
            method, names = planned.training.method, runner.identify(planned)
            if method not in templates:
                result = runner.compute(planned)
                templates[method] = result, store.predictions(result.run) or []
            elif names.run not in done:
                store.write_run(*_other(*templates[method], planned, names))
            done.add(names.run)
    return len(done)


def _other(
    result: Result, lines: list[dict[str, Any]], planned: PlannedRun, names: Identity
) -> tuple[Result, list[dict[str, Any]]]:
    """A run like another one, under other settings, with answers at random."""
    draw = random.Random(names.run)
    lines = copy.deepcopy(lines)
    for line in lines:
        line["accuracy"] = float(draw.random() < 0.6)
        line["prediction"] = line["gold"] if line["accuracy"] else 1 - min(line["gold"], 1)
    tasks = {}
    for name, scored in result.tasks.items():
        of_task = [line for line in lines if line["task"] == name]
        values = [line["accuracy"] for line in of_task]
        error = stats.clustered_standard_error(values, [line["group"] for line in of_task])
        found = {"metrics": {"accuracy": sum(values) / len(values)}, "standard_error": error}
        tasks[name] = scored.model_copy(update=found)
    training = result.training.model_copy(
        update={"id": names.training, "spec": planned.training, "label": planned.label}
    )
    changed = {"run": names.run, "training": sealed(training), "tasks": tasks}
    return result.model_copy(update={**changed, "evaluation": planned.evaluation}), lines
