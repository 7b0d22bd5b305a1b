"""Tables of many runs: each file is read once, and the screen is one that a person can read."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from animals import write_data
from command_line import Bench, command
from many_runs import finish, write_grid

from quanta_bench.models import loading
from quanta_bench.report.screen_rows import MOST_LINES, MOST_ROWS
from quanta_bench.results import predictions, store
from quanta_bench.runs.canary import ensure
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.request import make_request

ROWS, SEEDS = 45, 2


def make(folder: Path, model: Path, *, rows: int, seeds: int, items: int = 8) -> int:
    """Finish all runs of a suite ``many.yaml``, as a command does; returns how many there are."""
    data = write_data(folder, train=8, test=items)
    path = write_grid(folder / "many.yaml", data, model, rows=rows, seeds=seeds)
    request = make_request(str(path), "table", "embedded", Choice(), check=True)
    count = finish(request.grid, store.Store(folder / "r"))
    ensure(folder / "r")
    return count


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("many")
    assert make(folder, tiny_model, rows=ROWS, seeds=SEEDS) == ROWS * SEEDS + 1
    return folder


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each record and each file of predictions is read, and the model hashed."""
    counts: Counter[str] = Counter()

    def count(module: Any, name: str, key: Callable[..., str]) -> None:
        original = getattr(module, name)

        def counting(*args: Any, **options: Any) -> Any:
            counts[key(*args)] += 1
            return original(*args, **options)

        monkeypatch.setattr(module, name, counting)

    count(store, "read_record", lambda path, kind: str(path))
    count(predictions, "item_scores", lambda text, folder, result: f"{folder}/items")
    count(loading, "_fingerprint", lambda ref, folder: "model")
    return counts


@pytest.mark.parametrize("words", [(), ("--stored",)], ids=["found", "stored"])
def test_each_file_is_read_once_whatever_the_number_of_rows(
    many: Path, counted: Counter[str], bench: Bench, words: tuple[str, ...]
) -> None:
    said = bench("table", many / "many.yaml", "--results", many / "r", *words)
    assert said.status == 0, said.err
    runs = list((many / "r" / "runs").iterdir())
    assert {str(run / "result.json") for run in runs} <= counted.keys()
    assert {f"{run}/items" for run in runs} <= counted.keys()
    assert set(counted.values()) == {1}
    assert "model" in counted


IMPORTED = """
import sys
from quanta_bench.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print([name for name in ("torch", "transformers", "peft", "lightning") if name in sys.modules])
"""


@pytest.mark.parametrize("words", [(), ("--stored",)], ids=["found", "stored"])
def test_a_table_of_finished_runs_imports_no_library_of_models(
    many: Path, words: tuple[str, ...]
) -> None:
    """Importing them takes longer than reading all of the runs."""
    words = ("table", str(many / "many.yaml"), "--results", str(many / "r"), *words)
    call = [sys.executable, "-c", IMPORTED, *words]
    # What the model has and which rows fit was found when the fixture made the runs.
    said = subprocess.run(call, check=True, capture_output=True, text=True)
    assert said.stdout.splitlines()[-1] == "[]"


def test_a_long_table_is_shown_in_part_and_written_whole(
    many: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = bench("table", many / "many.yaml", "--results", many / "r", "--stored")
    lines = said.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 2 * MOST_ROWS + 30
    table = "\n".join(lines[: lines.index("")])
    assert table.count("LoRA ") == MOST_ROWS - 3  # chance, the best constant answer, the base
    assert f"{MOST_ROWS} of {ROWS + 3} rows" in said.both
    assert "All is in many.md" in said.both
    markdown = (many / "r" / "many.md").read_text()
    assert all(f"| LoRA {n} " in markdown for n in range(ROWS))
    # No row that is left out is better than one that is shown, but for the first of its method.
    score = {
        cells[1].partition(" ‡")[0]: float(cells[4].split()[0])
        for line in markdown.splitlines()
        if len(cells := [cell.strip() for cell in line.split("|")]) == 6
        and cells[1].startswith("LoRA")
    }
    kept = {name for name in score if f"\n{name} " in f"\n{table}"}
    assert len(kept) == MOST_ROWS - 3
    assert min(score[name] for name in kept - {"LoRA 0"}) >= max(
        score[name] for name in score.keys() - kept
    )


def test_a_table_of_few_rows_and_many_seeds_leaves_out_the_seeds_alone(
    tmp_path: Path, tiny_model: Path, bench: Bench
) -> None:
    seeds = MOST_LINES // 2 + 1
    make(tmp_path, tiny_model, rows=1, seeds=seeds, items=4)
    said = bench("table", tmp_path / "many.yaml", "--results", tmp_path / "r", "--stored")
    assert "LoRA 0" in said.out
    assert "Each seed" not in said.out
    assert "The values of single seeds are left out." in said.both
    assert "Each seed" in (tmp_path / "r" / "many.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("rows", "seeds"), [(100, 20), (2000, 1)])
def test_two_thousand_runs_take_ten_seconds_of_a_processor(
    tmp_path: Path, tiny_model: Path, rows: int, seeds: int
) -> None:
    make(tmp_path, tiny_model, rows=rows, seeds=seeds, items=100)
    for words in ((), ("--stored",)):
        call = command("table", tmp_path / "many.yaml", "--results", tmp_path / "r", *words)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(call, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert after.ru_utime - before.ru_utime < 10
