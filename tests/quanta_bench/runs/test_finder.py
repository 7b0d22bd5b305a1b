"""A grid of which every run is stored is found without torch, and is what a sweep finds."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from animals import write_data, write_suite
from rich.console import Console

from quanta_bench.data.pools import Pools
from quanta_bench.errors import SourceError
from quanta_bench.models import precision
from quanta_bench.results.store import Store
from quanta_bench.runs import runner as runners
from quanta_bench.runs.cells import Cells
from quanta_bench.runs.finder import all_finished
from quanta_bench.runs.identity import PlannedRow
from quanta_bench.runs.sweep import sweep
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.request import Request, make_request


@pytest.fixture
def request_(tiny_model: Path, tmp_path: Path) -> Request:
    data = write_data(tmp_path, train=8, validation=4, test=8)
    suite = write_suite(tmp_path, data, tiny_model)
    suite.write_text(suite.read_text().replace("precision: float32", "precision: auto"))
    return make_request(str(suite), "table", "embedded", Choice(seeds=(0,)), check=True)


def compute(
    request: Request, root: Path, fastest: str, monkeypatch: pytest.MonkeyPatch
) -> list[Cells]:
    """Compute a grid on a machine that is fastest in some dtype."""
    monkeypatch.setattr(runners, "automatic", lambda: fastest)
    dtype = getattr(precision.torch, fastest)
    monkeypatch.setattr(precision, "fast_dtype", lambda *_: dtype)
    cells, failed = sweep(request.grid, Store(root), Console(file=io.StringIO()), lambda _: "")
    assert failed == []
    return cells


def found(request: Request, root: Path) -> list[Cells] | None:
    return all_finished([PlannedRow.of(row) for row in request.grid], Store(root), Pools())


@pytest.mark.parametrize("fastest", ["float32", "bfloat16"])
def test_what_a_sweep_has_computed_is_found_whatever_this_machine_would_choose(
    request_: Request, tmp_path: Path, fastest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "r"
    assert found(request_, root) is None
    computed = compute(request_, root, fastest, monkeypatch)
    again = found(request_, root)
    assert again is not None
    assert [cells.results for cells in again] == [cells.results for cells in computed]


def test_a_run_of_each_precision_is_left_to_the_machine(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "r"
    for fastest in ("float32", "bfloat16"):
        compute(request_, tmp_path / fastest, fastest, monkeypatch)
        for run in (tmp_path / fastest / "runs").iterdir():
            (root / "runs").mkdir(parents=True, exist_ok=True)
            run.rename(root / "runs" / run.name)
    assert found(request_, root) is None


def test_a_missing_or_damaged_run_or_another_model_is_not_found(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "r"
    compute(request_, root, "float32", monkeypatch)
    run = next((root / "runs").glob("lora-*"))
    (run / "result.json").write_text("{}")
    assert found(request_, root) is None
    assert not run.exists()  # set aside, as a sweep does
    compute(request_, root, "float32", monkeypatch)
    assert found(request_, root) is not None
    monkeypatch.setattr("quanta_bench.runs.finder.unchecked_fingerprint", lambda _: "another")
    assert found(request_, root) is None

    def refuse(_: object) -> str:
        raise SourceError("there is none")

    monkeypatch.setattr("quanta_bench.runs.finder.unchecked_fingerprint", refuse)
    with pytest.raises(SourceError):
        found(request_, root)
