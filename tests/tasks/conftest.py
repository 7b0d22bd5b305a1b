"""Sources for the tests of tasks: the real embedded rows, a real partial checkout, and a stub."""

from __future__ import annotations

from typing import Any

import pytest
from paths import SHARED_DATA

from quanta_bench.sources.rows import KeptRows, parse_source
from quanta_bench.task import Location, Source

CHECKOUT = SHARED_DATA / "llm_adapters"


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
