"""Default and tuned learning rates keep the base's language, by the runs that are committed."""

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
from quanta_bench.suites.schema import Suite

BOUND = 1.5
"""Times the base's perplexity of running text."""


@pytest.fixture(scope="module")
def results() -> list[Result]:
    store = Store(STUDY)
    names = sorted(path.parent.name for path in STUDY.glob("runs/*/result.json"))
    found = [store.result(name) for name in names]
    return [result for result in found if result is not None]


def small_table_3(*, tuned: bool) -> Suite:
    """Table 3 with the tuned rates of its small size, or with the methods' defaults."""
    suite = load_suite("table3")
    profile = suite.profiles["embedded"]
    rows = profile.sizes["small"].rows if tuned else profile.rows
    small = profile.sizes["small"].model_copy(update={"rows": rows})
    changed = profile.model_copy(update={"sizes": {"small": small}})
    return suite.model_copy(update={"profiles": {"embedded": changed}})


@pytest.mark.parametrize("tuned", [True, False])
def test_every_row_of_table_3_keeps_running_text(results: list[Result], tuned: bool) -> None:
    rows = grid(small_table_3(tuned=tuned), "embedded", Choice(all_rows=True, seeds=(0,)))
    perplexity = {}
    for row in rows:
        ((_, run),) = PlannedRow.of(row).runs
        perplexity[row.spec.method] = max(
            result.forgetting["running_text"]
            for result in results
            if result.training.spec == run.training and "running_text" in result.forgetting
        )
    base = perplexity.pop("none")
    assert set(perplexity) == {name for name in METHODS.names() if name != "none"}
    assert {name: value for name, value in perplexity.items() if value > BOUND * base} == {}
