"""Finished runs of a tiny model on a user's own data, one a method and its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quanta_bench.cli.single_run import job
from quanta_bench.data.pools import Pools
from quanta_bench.export.stored import StoredRun
from quanta_bench.results.store import Store
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner

SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"r": 2},
    "prefix": {"num_virtual_tokens": 3},
    "quanta": {"dims": {"q_proj": [4, 4, 4], "v_proj": [8, 8]}},
    "series": {"bottleneck": 4},
    "full": {},
    "none": {},
    "peft": {"type": "IA3", "settings": {"target_modules": ["v_proj"], "feedforward_modules": []}},
}


class FinishedRuns:
    """Makes runs and keeps them.

    Args:
        root: the results folder.
        model: the base model's folder.
        data: the data, as JSON lines.
    """

    def __init__(self, root: Path, model: Path, data: Path) -> None:
        self._runner = Runner(Store(root), Silent(), Pools())
        self._model, self._data = model, data

    def __call__(self, method: str, **settings: Any) -> StoredRun:
        training = {"batch_size": 8, "validations": 1, "precision": "float32", "learning_rate": 0.1}
        values = {
            **{f"training.{key}": value for key, value in training.items()},
            **(settings or SETTINGS[method]),
        }
        model = f"local:{self._model}"
        asked = job(method, [f"jsonl:{self._data}"], values, 0, model, "embedded")
        return StoredRun(self._runner.store, self._runner.run(asked))
