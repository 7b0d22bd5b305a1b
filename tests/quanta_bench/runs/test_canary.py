"""The canary of this stack: computed by the whole path of a run, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from quanta_bench.results.canary import FOLDER, of_folder
from quanta_bench.runs import canary
from quanta_bench.training import trainer


def test_it_is_the_same_each_time_and_moves_with_what_it_watches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = canary.compute()
    assert first.items == canary.SPLITS["test"]
    again = canary.compute()
    assert again.mean == pytest.approx(first.mean, abs=1e-4)
    # A library that trained differently would be seen.
    monkeypatch.setattr(trainer, "train", _untrained(trainer.train))
    other = canary.compute()
    assert abs(other.mean - first.mean) > 2 * first.standard_error


def _untrained(train):  # type: ignore[no-untyped-def]
    def without_steps(model, method, spec, *args, **kwargs):  # type: ignore[no-untyped-def]
        return train(
            model, method, spec.model_copy(update={"learning_rate": 1e-9}), *args, **kwargs
        )

    return without_steps


def test_it_is_computed_once_and_kept_with_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path / "cache"))
    made = canary.ensure(tmp_path / "one")
    monkeypatch.setattr(canary, "compute", lambda: pytest.fail("computed again"))
    assert canary.ensure(tmp_path / "one") == made
    assert canary.ensure(tmp_path / "other") == made
    assert of_folder(tmp_path / "other") == {made.stack: made}
    (tmp_path / "one" / FOLDER / f"{made.stack}.json").write_text("{}")
    assert canary.ensure(tmp_path / "one") == made
