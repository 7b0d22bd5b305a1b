"""Sources for the tests of tasks: the real embedded rows, a real partial checkout, and a stub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quanta_bench.sources.kept_rows import KeptRows
from quanta_bench.sources.rows import parse_source
from quanta_bench.task import Location, Source

CHECKOUT = Path(__file__).parents[2].parent / "shared" / "data" / "llm_adapters"


class StubSource:
    """Rows by location, for a source of any kind."""

    def __init__(self, kind: Any, rows: dict[Location, list[dict[str, Any]]]) -> None:
        self.kind = kind
        self._rows = rows

    def rows(self, location: Location) -> list[dict[str, Any]]:
        return self._rows[location]


@pytest.fixture(scope="session")
def stub() -> type[StubSource]:
    return StubSource


@pytest.fixture(scope="session")
def embedded(offline: None) -> Source:
    return KeptRows(parse_source("embedded"))


@pytest.fixture(scope="session")
def checkout() -> Source:
    if not CHECKOUT.is_dir():
        pytest.skip(f"no checkout of LLM-Adapters at {CHECKOUT}")
    return KeptRows(parse_source(f"local:{CHECKOUT}"))
