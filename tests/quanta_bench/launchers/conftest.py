"""A small grid, whose runs take a second each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from animals import write_data

from quanta_bench.suites.grid import GridRow, grid
from quanta_bench.suites.schema import Suite


@pytest.fixture
def make_rows(tiny_model: Path, tmp_path: Path) -> Callable[..., list[GridRow]]:
    """Makes a base and LoRA with some seeds."""

    def make(seeds: int = 2, **training: Any) -> list[GridRow]:
        profile = {
            "model": ".",
            "model_source": f"local:{tiny_model}",
            "seeds": list(range(seeds)),
            "training": {"batch_size": 4, "validations": 1, "precision": "float32", **training},
            "rows": ["none", "lora"],
        }
        data = f"jsonl:{write_data(tmp_path)}"
        content = {"name": "t", "tasks": [data], "profiles": {"embedded": profile}}
        return grid(Suite.model_validate(content), "embedded")

    return make
