"""A results folder for tests of the page: three rows, two seeds, texts that mean harm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results_by_hand import Bench, items, suite

from quanta_bench.report import render
from quanta_bench.report.rate_study import RowStudy, Study, Trial
from quanta_bench.report.table import Table
from quanta_bench.results.records import Result
from quanta_bench.spec import Seeds, TrainingSpec
from quanta_bench.tuning.report import as_json

HOSTILE = "</script><img src=x onerror=window.harmed=1>=1+1\u2028\x1b[31m &lt;b&gt;"
"""An end of a script, markup, a formula, a line separator, a control sequence and entities."""

TASKS = ("boolq", "piqa")
SCORES = {
    "none": ([1, 0, 0, 0], [1, 1, 0, 0]),
    "lora": ([1, 1, 0, 0], [1, 1, 1, 0]),
    "dora": ([1, 1, 1, 0], [0, 1, 1, 0]),
}
LABELS = {"none": "Base", "lora": f"LoRA {HOSTILE}", "dora": "DoRA"}
COSTS = {"none": (0, 0.0, None), "lora": (100, 40.0, 3_000_000_000), "dora": (200, 30.0, None)}


def fill(root: Path) -> tuple[dict[tuple[str, int], Result], Table]:
    """Write runs and their table; returns both."""
    bench = Bench(root, gold=(0, 1))
    results: dict[tuple[str, int], Result] = {}
    for method, (boolq, piqa) in SCORES.items():
        trained, seconds, memory = COSTS[method]
        for seed in (0,) if method == "none" else (0, 1):
            spec: dict[str, Any] = {"method": method, "model": {"name": "m"}}
            if trained:
                spec |= {"tasks": TASKS, "seeds": Seeds(init=seed, order=seed)}
            scored = {
                "boolq": items(boolq if not seed else boolq[::-1], prefix=HOSTILE),
                "piqa": items(piqa),
            }
            training = {
                "spec": TrainingSpec(**spec),
                "label": LABELS[method],
                "trainable_parameters": trained,
                "added_parameters": trained,
                "steps": 10 if trained else 0,
                "seconds": seconds,
                "peak_memory_bytes": memory,
                "losses": [1.0, 0.5] if trained else [],
                "validations": [(5, 0.5, 0.9), (10, 0.6, 0.8)] if trained else [],
            }
            results[method, seed] = bench.result(
                scored, training=training, forgetting={"running_text": 20.0 + trained / 100}
            )
    rows = [{"method": name, "model": "m", "label": LABELS[name]} for name in SCORES]
    made = suite(*rows, tasks=TASKS).model_copy(update={"title": f"Table {HOSTILE}"})
    of_row = [
        {seed: result for (method, seed), result in results.items() if method == name}
        for name in SCORES
    ]
    table = bench.table(made, *of_row)
    render.write(table, root)
    (root / "tune-t.json").write_text(as_json(study([0.1, 0.01])))
    return results, table


def study(rates: Sequence[float]) -> Study:
    """A search as `tune` writes it: a row of these rates, scored 50 times the rate, 0.1 chosen."""
    row: dict[str, Any] = {"method": "lora", "model": "m", "present": 0.1, "settings": []}
    trials = [Trial(rate=rate, score=50 * rate) for rate in rates]
    return Study(
        name="tune-t",
        suite="t",
        profile="embedded",
        size="",
        title="Rates",
        fingerprint="f",
        command="",
        score="mean",
        lower_is_better=False,
        bound=None,
        seeds=[0],
        most=9,
        rows=[
            RowStudy(label=HOSTILE, trials=trials, chosen=0.1, **row),
            RowStudy(label="none", **row),
        ],
        skipped={},
    )
