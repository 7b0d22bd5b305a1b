"""The names of the runs of the suites that come with the package do not change unnoticed.

``identities.json`` holds, by suite, profile and size, by row and by seed, the hashes of each job's
training and evaluation specs, in the normal form that names its folder. The content of model and
data, which enters that name too, is left out: nothing is read and nothing needs to be fetched.

**A change of a hash here means that every result stored under the old name is no longer found** and
would be computed again. Only where a change is meant to do that, write the file anew::

    QUANTA_BENCH_WRITE_IDENTITIES=1 python -m pytest tests/quanta_bench/runs/test_identities.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from quanta_bench.runs.identity import PlannedRow
from quanta_bench.spec import identity
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.grid import grid
from quanta_bench.suites.loading import load_suite, pick_profile, shipped

PATH = Path(__file__).with_name("identities.json")
VARIABLE = "QUANTA_BENCH_WRITE_IDENTITIES"

Identities = dict[str, dict[str, dict[str, str]]]
"""By "suite/profile/size", row and seed, the hashes of its jobs with a space between them."""


def rows_by_suite() -> dict[str, list[PlannedRow]]:
    found = {}
    for name, path in shipped().items():
        suite = load_suite(str(path))
        for profile in suite.profiles:
            for size in pick_profile(suite, profile).sizes or [""]:
                rows = grid(suite, profile, Choice(size=size))
                key = "/".join(filter(None, (name, profile, size)))
                found[key] = [PlannedRow.of(row) for row in rows]
    return found


def hashes(planned: PlannedRow) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for seed, run in planned.runs:
        name = f"{identity(run.training)}-{identity(run.evaluation)}"
        found.setdefault(str(seed), []).append(name)
    return {seed: " ".join(names) for seed, names in found.items()}


def identities() -> Identities:
    return {
        key: {f"{row.row.spec.label} ({row.row.model.name})": hashes(row) for row in rows}
        for key, rows in rows_by_suite().items()
    }


@pytest.mark.skipif(not os.environ.get(VARIABLE), reason=f"{VARIABLE} is not set")
def test_write() -> None:
    PATH.write_text(json.dumps(identities(), indent=1, ensure_ascii=False) + "\n", "utf-8")


def test_the_runs_of_every_shipped_suite_keep_their_names() -> None:
    expected = json.loads(PATH.read_text("utf-8"))
    found = identities()
    assert found.keys() == expected.keys()
    changed = {
        (key, row)
        for key, rows in found.items()
        for row in rows.keys() | expected[key].keys()
        if rows.get(row) != expected[key].get(row)
    }
    assert not changed, "stored results of these rows would no longer be found"
