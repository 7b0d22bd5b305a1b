"""Commands in this process, and what they work on: a tiny model and a user's own data and suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from animals import write_data, write_suite
from command_line import Bench, Said, run_here

from quanta_bench.runs.canary import ensure


@pytest.fixture(scope="session")
def canary(tmp_path_factory: pytest.TempPathFactory) -> None:
    """This stack's canary, in the cache before tests count what commands compute."""
    ensure(tmp_path_factory.mktemp("canary"))


@pytest.fixture
def bench(
    canary: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bench:
    """Runs a command in this process."""

    def run(*words: str | Path) -> Said:
        said = run_here(monkeypatch, capsys, *words)
        assert "Traceback" not in said.out + said.err
        return said

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own data: 16 training rows, 4 for validation, 8 for test."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, data: Path, tiny_model: Path) -> Path:
    """A user's own suite over that data and a tiny model: two methods, two seeds."""
    return write_suite(tmp_path_factory.mktemp("suite"), data, tiny_model)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a model was loaded and trained."""
    from quanta_bench.models import loading
    from quanta_bench.training import trainer

    done = {"loaded": 0, "trained": 0}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            done[name] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(loading, "load_model", counted("loaded", loading.load_model))
    monkeypatch.setattr(trainer, "train", counted("trained", trainer.train))
    return done
