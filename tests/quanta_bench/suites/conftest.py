from __future__ import annotations

from pathlib import Path

import pytest
from small_suite import SMALL

from quanta_bench.suites.loading import load_suite
from quanta_bench.suites.schema import Suite


@pytest.fixture
def mine(tmp_path: Path) -> Suite:
    path = tmp_path / "mine.yaml"
    path.write_text(SMALL)
    return load_suite(str(path))
