"""A table's numbers and files stay what they were when they were computed without pandas."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
from results_by_hand import Bench, items, suite

from quanta_bench.report import render
from quanta_bench.report.table import Table

GOLDEN = Path(__file__).parent / "golden"
NOT_MEANS = re.compile(r" ± [\d.]+| [‡§]+|\*| [a-z](?= \|)")
"""Intervals and marks."""


def table(bench: Bench) -> Table:
    """Seeds on the same items and on others, groups, a metric of all items, a missing seed."""
    random = np.random.default_rng(0)

    def draw(count: int, prefix: str = "") -> list[object]:
        groups = [f"{prefix}g{n // 2}" for n in range(count)]
        return items([float(x) for x in random.integers(0, 2, count)], groups, prefix)

    rows = []
    for method in range(3):
        row = {}
        for seed in range(3 if method < 2 else 1):
            prefix = f"s{seed}-" if method == 1 else ""
            scored = {"boolq": draw(17), "piqa": draw(12, prefix), "rte": draw(6)}
            result = bench.result(scored, forgetting={"wikitext2": 20.0 + seed + method})
            f1 = {
                "metric": "f1",
                "metrics": {"f1": float(random.random()), "accuracy": 0.5},
                "standard_error": 0.01 * (1 + seed),
            }
            tasks = {**result.tasks, "rte": result.tasks["rte"].model_copy(update=f1)}
            row[seed] = result.model_copy(update={"tasks": tasks})
        rows.append(row)
    made = suite("lora", "dora", "full", tasks=("boolq", "piqa", "rte"))
    return bench.table(made, *rows)


def test_the_means_are_what_they_were(bench: Bench) -> None:
    lines = [line for line in render.as_markdown(table(bench)).splitlines() if line[:1] == "|"]
    earlier = (GOLDEN / "table.md").read_text(encoding="utf-8").splitlines()
    found = [NOT_MEANS.sub("", line) for line in lines[: len(earlier)]]
    assert found == [NOT_MEANS.sub("", line) for line in earlier]


def test_the_numbers_of_the_csv_file_are_what_they_were(bench: Bench) -> None:
    earlier = pd.read_csv(GOLDEN / "table.csv", dtype={"seeds": str, "values": str})
    found = pd.read_csv(
        io.StringIO(render.as_csv(table(bench))), dtype={"seeds": str, "values": str}
    )
    pd.testing.assert_frame_equal(found[list(earlier)], earlier, rtol=1e-12)
