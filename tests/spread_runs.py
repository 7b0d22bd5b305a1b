"""Runs of a tiny model, computed over some devices, and what makes two of them the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.devices import Devices
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.spreading import runner_for
from quanta_bench.spec import Job

TOLERANCE = 1e-4
"""Of losses, likelihoods and weights, relative: float32 sums in another order."""

FLOAT32 = {
    "training.batch_size": 4,
    "training.validations": 2,
    "training.precision": "float32",
    "training.learning_rate": 0.05,
}
"""Settings of a short training whose losses move."""


class Stored:
    """A finished run, and what it left on disk."""

    def __init__(self, store: Store, result: Result) -> None:
        self.store, self.result = store, result
        self.predictions = store.predictions(result.run) or []
        (path,) = (store.run_folder(result.run) / "adapter").glob("*.safetensors")
        self.weights = load_file(path)


def compute(asked: Job, root: Path, devices: Devices) -> Stored:
    store = Store(root)
    return Stored(store, runner_for(devices, store, Silent()).run(asked))


def assert_same(found: Stored, expected: Stored) -> None:
    """The same training and scores, to `TOLERANCE`."""
    one, other = found.result.training, expected.result.training
    assert (one.steps, one.tokens, one.train_items) == (
        other.steps,
        other.tokens,
        other.train_items,
    )
    assert one.losses == pytest.approx(other.losses, rel=TOLERANCE)
    assert [v[0] for v in one.validations] == [v[0] for v in other.validations]
    for mine, theirs in zip(one.validations, other.validations, strict=True):
        assert mine[1:] == pytest.approx(theirs[1:], rel=TOLERANCE)
    assert one.best_step == other.best_step
    assert found.weights.keys() == expected.weights.keys()
    for name, value in found.weights.items():
        difference = (value - expected.weights[name]).norm() / expected.weights[name].norm()
        assert difference < TOLERANCE, name
    assert [line["id"] for line in found.predictions] == [
        line["id"] for line in expected.predictions
    ]
    for line, theirs in zip(found.predictions, expected.predictions, strict=True):
        for numbers in {"log_likelihoods", "outputs"} & line.keys():
            assert line[numbers] == pytest.approx(theirs[numbers], rel=TOLERANCE, abs=1e-6)
        assert line.get("text") == theirs.get("text")
