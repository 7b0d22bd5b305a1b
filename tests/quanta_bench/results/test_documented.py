"""``results/README.md`` and ``docs/results.md`` name fields and columns as they are."""

from __future__ import annotations

import re

import pytest
from paths import ROOT

from quanta_bench.results.frames import COLUMNS
from quanta_bench.results.records import Record, Result, TaskResult, TrainingRecord

SCHEMA = (ROOT / "results" / "README.md").read_text("utf-8").split("## result.json")[1]
PAGE = (ROOT / "docs" / "results.md").read_text("utf-8").split("## In a DataFrame")[1]


@pytest.mark.parametrize(
    ("record", "start"), [(Result, ""), (TrainingRecord, "training"), (TaskResult, "tasks.<name>")]
)
def test_every_stored_field_is_documented(record: type[Record], start: str) -> None:
    """Fields stand in the table's first column; ``.name`` goes on from the name before it."""
    documented = set()
    for line in SCHEMA.splitlines():
        parent = ""
        for name in re.findall(r"`([^`]+)`", line.split("|")[1]) if line.startswith("|") else ():
            if not name.startswith("."):
                parent = name.rpartition(".")[0]
            documented.add(parent + name if name.startswith(".") else name)
    # A part's own fields stand for it.
    documented |= {name.split(".")[0] for name in documented}
    prefix = f"{start}." if start else ""
    assert {f"{prefix}{name}" for name in record.model_fields} <= documented


def test_the_columns_that_the_page_names_exist() -> None:
    text = PAGE.rpartition("`load` gives")[2].partition("Then the protocol")[0]
    named = {name for name in re.findall(r"`([\w.*]+)`", text) if not name.endswith(".*")}
    assert len(named) >= 15
    assert named <= COLUMNS.keys()
