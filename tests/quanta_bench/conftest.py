"""Fixtures of the core's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from results_by_hand import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A results folder, and results made by hand."""
    return Bench(tmp_path / "results")
