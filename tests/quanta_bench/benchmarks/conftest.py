"""A tiny model on the offline data, for whole benchmarks in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from quanta_bench.benchmark import Conditions
from quanta_bench.benchmarks.materials import Materials


@pytest.fixture
def conditions(tiny_model: Path, offline: None) -> Conditions:
    return Conditions(quick=True, model=f"local:{tiny_model}")


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single precision, in which all ways agree, whatever is fastest here."""
    precision = {"base": "float32", "arithmetic": "32-true"}
    monkeypatch.setattr(Materials, "precision", precision)
