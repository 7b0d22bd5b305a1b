"""A fuller table on disk outlives an emptier one."""

from __future__ import annotations

from pathlib import Path

import pytest
from results_by_hand import Bench, items, sentences, suite, two_seeds

from quanta_bench.report import render
from quanta_bench.report.overwriting import filled_cells
from quanta_bench.report.render import FORMATS


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("a,b\n1,\n", 3),
        ("seeds\n0 1 2\n", 4),
        ("label\nLoRA r=8\n", 2),
        ("", 0),
        ("a\n\n,,\n", 1),
        ("label,seed,failed\nLoRA,0,\nLoRA,,2\n", 4),
    ],
)
def test_cells_are_counted(text: str, count: int) -> None:
    assert filled_cells(text) == count


def test_an_emptier_table_gets_a_name_of_its_own(bench: Bench, tmp_path: Path) -> None:
    whole = two_seeds(bench)
    render.write(whole, tmp_path)
    before = {f"t.{end}": (tmp_path / f"t.{end}").read_bytes() for end in FORMATS}
    one = bench.result({"boolq": items([1, 1, 0, 0]), "piqa": items([1, 1, 1, 0])})
    paths = render.write(bench.table(suite(), {0: one}), tmp_path)
    assert [path.name for path in paths] == [f"t-partial.{end}" for end in FORMATS]
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_an_equal_or_fuller_table_takes_its_place(bench: Bench, tmp_path: Path) -> None:
    one = bench.result({"boolq": items([1, 1, 0, 0]), "piqa": items([1, 1, 1, 0])})
    render.write(bench.table(suite(), {0: one}), tmp_path)
    for _ in range(2):
        paths = render.write(two_seeds(bench), tmp_path)
        assert paths[0].name == "t.md"
    assert "37.5 ± " in (tmp_path / "t.md").read_text()


def test_missing_predictions_cost_the_error_of_several_seeds_alone(bench: Bench) -> None:
    scored = {"boolq": items([1, 0, 1]), "piqa": items([1, 0])}
    results = [bench.result(scored) for _ in range(2)]
    alone = bench.table(suite(), {0: results[0]}).rows[-1].cells["boolq"]
    for result in results:
        (bench.store.run_folder(result.run) / "predictions.jsonl").unlink()
    one = bench.table(suite(), {0: results[0]})
    assert one.rows[-1].cells["boolq"] == alone
    assert not any("No standard error" in note for note in sentences(one))
    both = bench.table(suite(), dict(enumerate(results)))
    assert both.rows[-1].cells["boolq"].standard_error is None
    assert both.rows[-1].cells["boolq"].mean == alone.mean
    assert any("No standard error over items of LoRA r=8:" in note for note in sentences(both))
