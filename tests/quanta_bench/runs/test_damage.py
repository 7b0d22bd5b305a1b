"""A finished sweep with one file damaged: it is named, set aside and computed again; no other is.

The sweep computed again must print what the whole one printed.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from animals import write_data, write_suite
from results_by_hand import sentences
from rich.console import Console

from quanta_bench.errors import SourceError
from quanta_bench.report import render
from quanta_bench.report.tables import make_table
from quanta_bench.results import provenance
from quanta_bench.results.store import Store
from quanta_bench.runs import runner as runners
from quanta_bench.runs import stored as by_spec
from quanta_bench.runs.cells import Cells
from quanta_bench.runs.sweep import Fresh, sweep
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.request import Request, make_request
from quanta_bench.training import trainer


@dataclass
class Sweep:
    """A results folder and what a sweep of it gives."""

    root: Path
    request: Request

    @property
    def run(self) -> Path:
        """The folder of LoRA's first seed."""
        return next(
            path.parent
            for path in sorted(self.root.glob("runs/lora-*/result.json"))
            if json.loads(path.read_text())["training"]["spec"]["seeds"]["init"] == 0
        )

    @property
    def training(self) -> Path:
        return self.root / "trainings" / self.run.name.split("-")[1]

    def again(self, fresh: Fresh = "") -> tuple[list[Cells], list[str], str, int]:
        """Cells, failures, what was printed, and how many runs were computed."""
        console = Console(file=io.StringIO(), width=10_000)
        before = runners._computed
        cells, failed = sweep(
            self.request.grid, Store(self.root), console, lambda _: "", fresh=fresh, at_once=1
        )
        text = console.file.getvalue()  # type: ignore[attr-defined]
        return cells, failed, text, runners._computed - before

    def table(self, cells: list[Cells]) -> str:
        return render.as_csv(make_table(self.request, cells, Store(self.root)))


@pytest.fixture(scope="module")
def whole(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Sweep, str]]:
    """A finished sweep and its table."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    data = write_data(folder, train=8, validation=4, test=8)
    suite = write_suite(folder, data, tiny_model, training="learning_rate: 0.003")
    request = make_request(str(suite), "table", "embedded", Choice(), check=True)
    made = Sweep(folder / "results", request)
    cells, failed, _, computed = made.again()
    assert (failed, computed) == ([], 3)
    yield made, made.table(cells)
    torch.set_num_threads(threads)


@pytest.fixture
def damaged(whole: tuple[Sweep, str], tmp_path: Path) -> Sweep:
    """A copy that a test may damage."""
    shutil.copytree(whole[0].root, tmp_path / "results")
    return Sweep(tmp_path / "results", whole[0].request)


def truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def accuracy(run: Path) -> str:
    (task,) = json.loads((run / "result.json").read_text())["tasks"].values()
    return f'"accuracy": {task["metrics"]["accuracy"]}'


RUN_DAMAGE: dict[str, Callable[[Path], None]] = {
    "predictions truncated": lambda run: truncate(run / "predictions.jsonl", 700),
    "prediction lines missing": lambda run: (
        (run / "predictions.jsonl").write_bytes(
            b"".join((run / "predictions.jsonl").read_bytes().splitlines(keepends=True)[:3])
        )
        and None
    ),
    "metric edited": lambda run: replace(run / "result.json", accuracy(run), '"accuracy": 0.99'),
    "metric NaN": lambda run: replace(run / "result.json", accuracy(run), '"accuracy": "NaN"'),
    "spec edited": lambda run: replace(
        run / "result.json", '"learning_rate": 0.003', '"learning_rate": 99.0'
    ),
    "result truncated": lambda run: truncate(run / "result.json", 1000),
    "result empty": lambda run: truncate(run / "result.json", 0),
}


@pytest.mark.parametrize("damage", RUN_DAMAGE)
def test_a_damaged_run_is_set_aside_and_scored_again(
    damaged: Sweep, whole: tuple[Sweep, str], damage: str
) -> None:
    run = damaged.run
    RUN_DAMAGE[damage](run)
    content = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    cells, failed, text, computed = damaged.again()
    assert failed == []
    assert computed == 1
    (aside,) = (damaged.root / "set-aside").iterdir()
    assert aside.name.startswith(run.name)
    assert {path.name: path.read_bytes() for path in aside.iterdir() if path.is_file()} == content
    assert str(run) in text
    assert str(aside) in text
    assert damaged.table(cells) == whole[1]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 255
    path.write_bytes(content)


def pickle(path: Path) -> None:
    path.unlink()
    torch.save({"x": print}, path.with_name("adapter_model.bin"))


ADAPTER_DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated": lambda path: truncate(path, 2000),
    "bit flipped": flip,
    "missing": lambda path: path.unlink(),
    "pickle": pickle,
}


@pytest.mark.parametrize("damage", ADAPTER_DAMAGE)
def test_a_damaged_adapter_is_set_aside_and_trained_again(
    damaged: Sweep, whole: tuple[Sweep, str], damage: str
) -> None:
    training = damaged.training
    shutil.rmtree(damaged.run)
    (adapter,) = (training / "adapter").glob("*.safetensors")
    ADAPTER_DAMAGE[damage](adapter)
    cells, failed, text, computed = damaged.again()
    assert failed == []
    assert computed == 1
    (aside,) = (damaged.root / "set-aside").iterdir()
    assert aside.name == f"training-{training.name}-adapter"
    assert str(training) in text
    assert damaged.table(cells) == whole[1]


@pytest.mark.parametrize(
    ("name", "content"),
    [("precision.json", b""), ("precision.json", b"[1]"), ("last.ckpt", b"garbage\n")],
)
def test_a_damaged_checkpoint_is_set_aside_and_trained_from_the_start(
    damaged: Sweep, whole: tuple[Sweep, str], name: str, content: bytes
) -> None:
    training = damaged.training
    shutil.rmtree(damaged.run)
    shutil.rmtree(training)
    unfinished = damaged.root / "unfinished" / training.name
    unfinished.mkdir(parents=True)
    (unfinished / name).write_bytes(content)
    cells, failed, _, computed = damaged.again()
    assert failed == []
    assert computed == 1
    aside = damaged.root / "set-aside" / f"unfinished-{training.name}-checkpoint"
    assert (aside / name).read_bytes() == content
    assert damaged.table(cells) == whole[1]


@pytest.fixture
def interrupted(damaged: Sweep, monkeypatch: pytest.MonkeyPatch) -> tuple[Sweep, Path]:
    """A training stopped after its first validation, and the checkpoint that it left."""
    training = damaged.training
    shutil.rmtree(damaged.run)
    shutil.rmtree(training)
    advance = trainer._Progress.on_train_batch_end

    def stop(self: Any, fitted: Any, module: Any, *rest: Any) -> None:
        advance(self, fitted, module, *rest)
        if fitted.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer._Progress, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            damaged.again()
    return damaged, damaged.root / "unfinished" / training.name / "last.ckpt"


def resumed(sweep: Sweep) -> bool:
    return bool(json.loads((sweep.run / "result.json").read_text())["training"]["resumed"])


def flip_in_a_tensor(path: Path) -> None:
    """Flip one bit in the archive's largest member, where no reader could parse its way past it."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
        start = content.index(archive.read(largest))
    content[start + largest.file_size // 2] ^= 1
    path.write_bytes(content)


CHECKPOINT_DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated": lambda path: truncate(path, path.stat().st_size // 2),
    "bit flipped": flip_in_a_tensor,
}


@pytest.mark.parametrize("damage", CHECKPOINT_DAMAGE)
def test_a_damaged_checkpoint_of_a_stopped_run_is_set_aside_and_trained_from_the_start(
    interrupted: tuple[Sweep, Path], whole: tuple[Sweep, str], damage: str
) -> None:
    stopped, checkpoint = interrupted
    CHECKPOINT_DAMAGE[damage](checkpoint)
    content = checkpoint.read_bytes()
    cells, failed, text, computed = stopped.again()
    assert (failed, computed) == ([], 1)
    aside = stopped.root / "set-aside" / f"unfinished-{checkpoint.parent.name}-checkpoint"
    assert (aside / "last.ckpt").read_bytes() == content
    assert str(aside) in text
    assert not resumed(stopped)
    assert stopped.table(cells) == whole[1]


def test_a_stopped_run_without_its_best_checkpoint_is_set_aside_and_trained_from_the_start(
    interrupted: tuple[Sweep, Path], whole: tuple[Sweep, str]
) -> None:
    stopped, checkpoint = interrupted
    checkpoint.with_name("best.ckpt").unlink()
    cells, failed, text, computed = stopped.again()
    assert (failed, computed) == ([], 1)
    assert "best.ckpt is missing" in text
    assert not resumed(stopped)
    assert stopped.table(cells) == whole[1]


@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_that_other_code_began_is_set_aside_and_trained_from_the_start(
    interrupted: tuple[Sweep, Path],
    whole: tuple[Sweep, str],
    monkeypatch: pytest.MonkeyPatch,
    recorded: bool,
) -> None:
    stopped, checkpoint = interrupted
    real = provenance.source_hash
    if recorded:
        monkeypatch.setattr(
            provenance, "source_hash", lambda name: "1" if "lora" in name else real(name)
        )
    else:
        checkpoint.with_name("code.json").unlink()
    content = checkpoint.read_bytes()
    _, failed, text, computed = stopped.again()
    assert (failed, computed) == ([], 1)
    aside = stopped.root / "set-aside" / f"unfinished-{checkpoint.parent.name}-code"
    assert (aside / "last.ckpt").read_bytes() == content
    assert ("the method lora has changed" if recorded else "its code was not recorded") in text
    assert not resumed(stopped)
    record = json.loads((stopped.run / "result.json").read_text())["training"]
    assert (record["code"]["method:lora"]["source"] == "1") is recorded


def test_a_whole_checkpoint_of_a_stopped_run_is_resumed(
    interrupted: tuple[Sweep, Path], whole: tuple[Sweep, str]
) -> None:
    """The counterpart: it is the damage that the tests above find."""
    stopped, _ = interrupted
    cells, failed, _, computed = stopped.again()
    assert (failed, computed) == ([], 1)
    assert not (stopped.root / "set-aside").exists()
    assert resumed(stopped)
    assert stopped.table(cells) == whole[1]


def test_a_newer_record_is_named_and_left_and_no_other_row_suffers(damaged: Sweep) -> None:
    path = damaged.run / "result.json"
    replace(path, '"schema_version": 2', '"schema_version": 3')
    content = path.read_bytes()
    cells, failed, _, computed = damaged.again()
    assert computed == 0
    (message,) = failed
    assert "later version of quanta-bench" in message
    assert path.read_bytes() == content
    assert [cell.complete for cell in cells] == [[0], [1]]


def test_a_foreign_folder_is_no_obstacle(damaged: Sweep, whole: tuple[Sweep, str]) -> None:
    foreign = damaged.root / "runs" / "foo"
    foreign.mkdir()
    (foreign / "result.json").write_text("{}")
    cells, failed, _, computed = damaged.again()
    assert (failed, computed) == ([], 0)
    assert damaged.table(cells) == whole[1]


def test_results_of_other_code_are_marked_and_renewed_alone(
    damaged: Sweep, whole: tuple[Sweep, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = provenance.source_hash
    monkeypatch.setattr(
        provenance, "source_hash", lambda name: "1" if "lora" in name else real(name)
    )
    cells, _, _, computed = damaged.again()
    assert computed == 0
    table = make_table(damaged.request, cells, Store(damaged.root))
    base, lora = table.rows[-2:]
    assert (base.stale, lora.stale) == ([], ["the method lora has changed"])
    assert "| LoRA †" in render.as_markdown(table)
    assert any("--fresh stale" in note for note in sentences(table))
    cells, failed, _, computed = damaged.again("stale")
    assert (failed, computed) == ([], 2)
    table = make_table(damaged.request, cells, Store(damaged.root))
    assert [row.stale for row in table.rows[-2:]] == [[], []]
    assert damaged.table(cells) == whole[1]
    assert damaged.again("stale")[3] == 0


def lora_peaks(root: Path) -> dict[int, int | None]:
    """Peak memory of LoRA's trainings by seed."""
    records = [json.loads(path.read_text()) for path in root.glob("runs/lora-*/result.json")]
    trainings = [record["training"] for record in records]
    return {one["spec"]["seeds"]["init"]: one["peak_memory_bytes"] for one in trainings}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU measures the peak of every run")
def test_memory_is_a_runs_own_or_unknown(damaged: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    # The base was computed first in this process, or other tests' runs were.
    assert lora_peaks(damaged.root) == {0: None, 1: None}
    # As in a process whose first training is LoRA's first, after the base.
    monkeypatch.setattr(runners, "_computed", -1)
    damaged.again("all")
    peaks = lora_peaks(damaged.root)
    assert 10e6 < (peaks[0] or 0) < 1e12
    assert peaks[1] is None


def test_a_result_says_in_full_how_it_was_made(whole: tuple[Sweep, str]) -> None:
    data = json.loads((whole[0].run / "result.json").read_text())
    training = data["training"]
    assert training["settings"]["r"] == 2
    assert "dropout" in training["settings"]
    assert set(training["code"]) == {"suite", "method:lora", "task:jsonl"}
    assert set(data["code"]) == {"suite", "task:jsonl"}
    assert data["evaluation_precision"] == {"base": "float32", "arithmetic": "32-true"}
    assert all(len(digest) == 64 for digest in training["adapter"].values())


def test_a_finished_table_is_printed_without_model_and_data(
    damaged: Sweep, whole: tuple[Sweep, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine: found by the specs, and the table says that this is all."""

    def refuse(*_: object) -> None:
        raise SourceError("there is none")

    monkeypatch.setattr(by_spec, "is_here", lambda _: False)
    monkeypatch.setattr("quanta_bench.runs.contents.unchecked_fingerprint", refuse)
    monkeypatch.setattr("quanta_bench.data.pools.Pools.get", refuse)
    assert not by_spec.content_is_here(damaged.request.grid)
    cells = by_spec.stored_cells(damaged.request.grid, Store(damaged.root))
    assert cells is not None
    assert damaged.table(cells) == whole[1]
    notes = sentences(make_table(damaged.request, cells, Store(damaged.root)))
    assert any("found by their specs; whether" in note for note in notes)
    assert any(re.match("Not readable here: jsonl:.*, local:", note) for note in notes)
    shutil.rmtree(damaged.run)
    assert by_spec.stored_cells(damaged.request.grid, Store(damaged.root)) is None
    some = by_spec.stored_cells(damaged.request.grid, Store(damaged.root), partial=True)
    assert some is not None
    assert 0 < sum(len(c.everything()) for c in some) < sum(len(c.everything()) for c in cells)
    # A seed that is stored counts as finished, also in a row that lacks another one.
    assert [c.row.parts for c in some] == [c.row.parts for c in cells]
    assert [c.complete for c in some] == [sorted(c.results) for c in some]
    shutil.rmtree(damaged.root / "runs")
    assert by_spec.stored_cells(damaged.request.grid, Store(damaged.root), partial=True) is None
