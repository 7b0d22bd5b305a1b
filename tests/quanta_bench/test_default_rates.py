"""Default learning rates keep the base's language, by the runs that are committed."""

from __future__ import annotations

import pytest
from paths import STUDY

from quanta_bench.plugins import METHODS
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.identity import PlannedRow
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.grid import grid
from quanta_bench.suites.loading import load_suite

BOUND = 1.5
"""Times the base's perplexity of running text."""


@pytest.fixture(scope="module")
def results() -> list[Result]:
    store = Store(STUDY)
    names = sorted(path.parent.name for path in STUDY.glob("runs/*/result.json"))
    found = [store.result(name) for name in names]
    return [result for result in found if result is not None]


def test_every_default_row_of_table_3_keeps_running_text(results: list[Result]) -> None:
    rows = grid(load_suite("table3"), "embedded", Choice(all_rows=True, seeds=(0,)))
    perplexity = {}
    for row in rows:
        ((_, run),) = PlannedRow.of(row).runs
        (result,) = (
            result
            for result in results
            if (result.training.spec, result.evaluation) == (run.training, run.evaluation)
        )
        perplexity[row.spec.method] = result.forgetting["running_text"]
    base = perplexity.pop("none")
    assert set(perplexity) == {name for name in METHODS.names() if name != "none"}
    assert {name: value for name, value in perplexity.items() if value > BOUND * base} == {}
