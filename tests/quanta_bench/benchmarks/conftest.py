"""A tiny model on the offline data, for whole benchmarks in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from quanta_bench.benchmark import Conditions


@pytest.fixture
def conditions(tiny_model: Path, offline: None) -> Conditions:
    return Conditions(quick=True, model=f"local:{tiny_model}")
