"""Figures from results made by hand, and from runs of a tiny model, to the files."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from command_line import run_here
from results_by_hand import Bench, items
from scipy import stats

from quanta_bench.errors import UsageError
from quanta_bench.report import figures, plots, subspace
from quanta_bench.report.figure import Drawn
from quanta_bench.runs.cells import Cells
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.grid import grid
from quanta_bench.suites.request import Request, make_request
from quanta_bench.suites.schema import Drawing, Suite
from quanta_bench.utils.escaping import drawable

ROWS = (
    {"method": "none", "label": "Base", "line": True},
    {"method": "lora", "label": "LoRA r=2", "settings": {"r": 2}},
    {"method": "lora", "label": "LoRA r=8", "settings": {"r": 8}},
    {"method": "krona", "label": "KronA"},
)


def drawn(bench: Bench, *scores: dict[int, list[float]]) -> Drawn:
    """The figure of rows whose items' scores are given by seed."""
    made = Suite(
        name="f",
        title="F",
        tasks=("drop",),
        figure=Drawing(kind="parameters"),
        profiles={"embedded": {"rows": ROWS}},
    )
    rows = grid(made, "embedded", Choice(seeds=(0, 1)))
    cells = [
        Cells(
            row,
            {
                seed: [
                    bench.result(
                        {"drop": items(values)},
                        training={"trainable_parameters": 1000 * n},
                    )
                ]
                for seed, values in found.items()
            },
        )
        for n, (row, found) in enumerate(zip(rows, scores, strict=True))
    ]
    request = Request(made, "embedded", made.profiles["embedded"], "", rows)
    return figures.draw(request, cells, bench.store)


BOTH: tuple[dict[int, list[float]], ...] = (
    {0: [0, 0, 1, 0]},
    {0: [1, 0, 1, 0], 1: [1, 0, 0, 0]},
    {0: [1, 1, 1, 0], 1: [1, 1, 1, 1]},
    {0: [1, 0, 0, 0]},
)


def records(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_file_has_the_results_means_and_errors(bench: Bench, tmp_path: Path) -> None:
    paths = figures.write(drawn(bench, *BOTH), tmp_path)
    assert [path.name for path in paths] == ["f.png", "f.svg", "f.csv", "f.md"]
    rows = {row["row"]: row for row in records(paths[2])}
    assert [rows[row["label"]]["trainable_parameters"] for row in ROWS] == [
        "0", "1000", "2000", "3000",
    ]  # fmt: skip
    for label, found in zip(rows, BOTH, strict=True):
        means = [100 * np.mean(values) for values in found.values()]
        assert float(rows[label]["mean"]) == pytest.approx(np.mean(means))
        items = stats.t.ppf(0.975, 3) * 100 * np.std(found[0], ddof=1) / 2
        bar = float(rows[label]["error_bar"])
        assert bar == pytest.approx(items) if len(means) == 1 else bar > np.std(means, ddof=1)


def test_the_picture_shows_those_numbers(bench: Bench) -> None:
    (axes,) = drawn(bench, *BOTH).pictures[0].figure.axes
    curves = {c.get_label(): c.lines[0].get_xydata().tolist() for c in axes.containers}
    assert curves == {
        "LoRA": [[1000, pytest.approx(37.5)], [2000, pytest.approx(87.5)]],
        "KronA": [[3000, pytest.approx(25.0)]],
    }
    (level,) = [line for line in axes.lines if line.get_label() == "Base, 25.0 ± 79.6"]
    assert list(level.get_ydata()) == [25.0, 25.0]
    assert axes.get_xscale() == "log"


@pytest.mark.parametrize(
    "name",
    ["$x^2$ & $y_1$", r"$\frac{1}{$", "\x1b[31mred", "a\x00b\x9b", "</text><script>", "a\u202eb"],
)
def test_a_picture_shows_a_rows_name_as_it_is_written(tmp_path: Path, name: str) -> None:
    curve = plots.Curve(name, (plots.Point(name, 1000, 50.0, 1.0), plots.Point(name, 9000, 60.0)))
    figure = plots.against_parameters([curve], [], metric=name, caption=name, title=name)
    _, picture = plots.save(figure, tmp_path, "f")
    texts = [
        "".join(node.itertext()) for node in ElementTree.parse(picture).iter() if "text" in node.tag
    ]
    # In the legend, the title, the caption and along the axis.
    assert texts.count(drawable(name)) == 4
    assert "5 k" in texts


@pytest.mark.parametrize(
    ("seeds", "caption"),
    [
        ([1, 1, 1, 1], "1 seed a row, 3 test items; bars and ±: 95 % interval of items alone"),
        ([2, 2, 2, 2], "2 seeds a row, 3 test items; bars and ±: 95 % interval of seeds and items"),
        (
            [1, 2, 2, 1],
            "1 or 2 seeds a row, 3 test items; bars and ±: 95 % interval of seeds and items, of "
            "one seed 95 % interval of items alone",
        ),
    ],
)
def test_the_picture_states_seeds_items_and_what_the_bars_are(
    bench: Bench, seeds: list[int], caption: str
) -> None:
    scores = [{seed: [1.0, 0.0, 1.0] for seed in range(count)} for count in seeds]
    made = drawn(bench, *scores)
    assert made.pictures[0].figure.get_supxlabel() == caption
    assert f"{caption}." in made.notes["Scores"]


def test_a_figure_explains_no_marks_since_it_shows_none(bench: Bench) -> None:
    made = drawn(bench, *(4 * [{0: [1.0, 0.0, 1.0, 0.0], 1: [0.0, 1.0, 1.0, 0.0]}]))
    said = " ".join(made.notes["Scores"])
    assert "differs from" not in said
    assert "letter" not in said


def test_the_same_figure_is_the_same_svg_and_pyplot_is_left_alone(
    bench: Bench, tmp_path: Path
) -> None:
    made = [figures.write(drawn(bench, *BOTH), tmp_path / str(n))[1] for n in range(2)]
    assert made[0].read_bytes() == made[1].read_bytes()
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_only_vectors_with_i_up_to_j_are_drawn() -> None:
    panel = plots.Panel("p", torch.rand(3, 4), "a", "b")
    figure = plots.heat_maps([panel])
    mask = figure.axes[0].images[0].get_array().mask
    assert mask.tolist() == [[i > j for j in range(4)] for i in range(3)]


def test_the_scale_of_the_maps_fits_all_of_them() -> None:
    small = plots.Panel("p", torch.full((2, 3), 0.11), "a", "b")
    chance = plots.Panel("q", subspace.by_chance_each(2, 3, 13), "a", "b")  # at most 3 / 13
    figure = plots.heat_maps([small, chance])
    assert [axes.images[0].get_clim() for axes in figure.axes[:2]] == [(0, 0.25), (0, 0.25)]
    assert plots.heat_maps([plots.Panel("p", torch.ones(1, 1), "a", "b")]).axes[0].images[
        0
    ].get_clim() == (0, 1)


def test_similarity_by_chance_is_that_of_random_spans() -> None:
    generator = torch.Generator().manual_seed(0)
    width, draws = 20, 400
    total = torch.zeros(4, 6, dtype=torch.float64)
    for _ in range(draws):
        bases = [
            torch.linalg.qr(torch.randn(width, size, generator=generator, dtype=torch.float64))[0]
            for size in (4, 6)
        ]
        total += subspace.similarity(*bases)
    expected = subspace.by_chance_each(4, 6, width)
    torch.testing.assert_close(total / draws, expected, atol=0.015, rtol=0)


# --- similarity, end to end -------------------------------------------------------------------


MODULES = ["model.layers.1.self_attn.q_proj", "model.layers.0.self_attn.v_proj"]


@pytest.fixture
def suite(tmp_path: Path, tiny_model: Path, llm_adapters: Path) -> Path:
    """LoRA of ranks 2 and 4 and prefix tuning on a tiny model, each on a task of its own."""
    prompted = {"num_virtual_tokens": 2}
    rows = [
        {"method": method, "label": f"{method} {n}", "settings": settings,
         "training": {"tasks": ["piqa"], "learning_rate": 0.01}, "evaluation": {"tasks": ["piqa"]}}
        for method, n, settings in (
            ("lora", 2, {"r": 2}), ("lora", 4, {"r": 4}), ("prefix", 2, prompted),
        )
    ]  # fmt: skip
    source = f"local:{llm_adapters}"
    content = {
        "name": "similar",
        "title": "Similar",
        "tasks": ["boolq", "piqa"],
        "figure": {
            "kind": "similarity",
            "modules": {"embedded": MODULES},
            "pairs": {"embedded": [["lora 2", "lora 4"], ["lora 4", "prefix 2"]]},
        },
        "profiles": {
            "embedded": {
                "model": ".",
                "model_source": f"local:{tiny_model}",
                "training": {"source": source, "train_items": 8, "validation_items": 4},
                "evaluation": {"source": source, "items": 4},
                "rows": rows,
            }
        },
    }
    path = tmp_path / "similar.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*words: Any) -> tuple[int, str, str]:
        said = run_here(monkeypatch, capsys, *words)
        return said.status, said.out, said.err

    return run


def test_similarity_from_the_command_line(call: Call, suite: Path, tmp_path: Path) -> None:
    results = tmp_path / "out"
    status, out, err = call("figure", suite, "--results", results, "--json")
    assert status == 0, err
    found = json.loads(out)
    # The row that cannot be merged is not trained for nothing, and its panel is a note.
    runs = sorted(path.name.partition("-")[0] for path in (results / "runs").iterdir())
    assert runs == ["lora", "lora"]
    assert any("prefix 2 cannot be merged" in note for note in found["notes"]["Caveats"])
    for folder in (results / "runs").iterdir():
        result = json.loads((folder / "result.json").read_text())
        assert result["training"]["spec"]["tasks"] == ["piqa"]
        assert set(result["tasks"]) == {"piqa"}

    # B A of each adapter, read from its file, decomposed and projected by numpy.
    from safetensors.numpy import load_file

    spaces: dict[int, dict[str, Any]] = {}
    for folder in (results / "runs").iterdir():
        tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
        for module in MODULES:
            a = tensors[f"base_model.model.{module}.lora_A.weight"].astype(float)
            b = tensors[f"base_model.model.{module}.lora_B.weight"].astype(float)
            vectors = np.linalg.svd(b @ a)[2].T[:, : len(a)]
            spaces.setdefault(len(a), {})[module] = vectors
    rows = records(results / "similar.csv")
    assert len(rows) == 2 * (4 + 3)
    for row in rows:
        i, j = int(row["i"]), int(row["j"])
        first, second = spaces[2][row["module"]][:, :i], spaces[4][row["module"]][:, :j]
        expected = np.linalg.norm(first.T @ second) ** 2 / min(i, j)
        assert float(row["similarity"]) == pytest.approx(expected, abs=1e-3)
    assert {Path(path).name for path in found["files"]} == {
        "similar.md",
        *(f"similar{part}.{end}" for part in ("", "-spectra") for end in ("png", "svg", "csv")),
    }

    before = (results / "similar.svg").read_bytes()
    status, out, err = call("figure", suite, "--results", results)
    assert status == 0, err
    assert "similar.svg" in err.replace("\n", "")
    assert (results / "similar.svg").read_bytes() == before


@pytest.mark.parametrize(
    ("part", "wrong", "said"),
    [
        ("modules", ["model.layers.1.self_attn.q_prj"], "Did you mean 'model.layers.1.self_attn."),
        ("modules", ["model.layers.7.self_attn.q_proj"], "no weight matrix in 'model.layers.7"),
        ("modules", ["model.layers.1.self_attn"], "no weight matrix in"),
        ("pairs", [["lora 2", "lora 5"]], "no row 'lora 5'. Did you mean 'lora"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["run", "plan"])
def test_a_row_or_module_that_is_not_there_is_said_before_anything_runs(
    call: Call, suite: Path, tmp_path: Path, part: str, wrong: Any, said: str, more: list[str]
) -> None:
    content = yaml.safe_load(suite.read_text())
    content["figure"][part]["embedded"] = wrong
    suite.write_text(yaml.safe_dump(content))
    status, _, err = call("figure", suite, "--results", tmp_path / "out", *more)
    assert status == 2
    assert said in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_a_profile_that_a_figure_names_has_to_be_there(call: Call, suite: Path) -> None:
    content = yaml.safe_load(suite.read_text())
    content["figure"]["pairs"]["embeded"] = [["lora 2", "lora 4"]]
    suite.write_text(yaml.safe_dump(content))
    status, _, err = call("figure", suite)
    assert status == 2
    assert "names a profile 'embeded'. Did you mean 'embedded'?" in " ".join(err.split())


def test_nothing_left_to_compare_is_said_before_anything_runs(
    call: Call, suite: Path, tmp_path: Path
) -> None:
    status, _, err = call("figure", suite, "--methods", "prefix", "--results", tmp_path / "out")
    assert status == 2
    assert "nothing is left to compare" in err
    assert "lora 2 is not selected" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [("figure", "table3", "table3 is a table"), ("table", "figure4", "figure4 is a figure")],
)
def test_a_table_is_no_figure(kind: str, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_request(name, kind, "embedded", Choice(), check=False)
    with pytest.raises(UsageError, match="no figure '3'"):
        make_request("3", "figure", "embedded", Choice(), check=False)


def test_pairs_are_compared_on_another_model_and_with_other_settings(tmp_path: Path) -> None:
    from transformers import LlamaConfig

    from quanta_bench.report.subspace_figure import choose

    config = LlamaConfig(
        vocab_size=64, hidden_size=128, intermediate_size=64, num_attention_heads=4
    )
    config.save_pretrained(tmp_path)
    plain = choose(make_request("2", "figure", "embedded", Choice(), check=True))
    for choice in (
        Choice(model=f"local:{tmp_path}"),
        Choice(settings={"quanta.dims": [9, 8, 8]}),
    ):
        request = make_request("2", "figure", "embedded", choice, check=True)
        chosen = choose(request)
        assert not chosen.notes
        assert len(chosen.pairs) == len(plain.pairs)
        assert chosen.pairs != plain.pairs
        assert set(chosen.labels) == {row.spec.label for row in request.grid}


def test_shipped_figures_name_rows_and_modules_that_are_there() -> None:
    from quanta_bench.models.meta import meta_model
    from quanta_bench.report.subspace_figure import choose

    for profile in ("embedded", "paper"):
        request = make_request("2", "figure", profile, Choice(), check=True)
        chosen = choose(request)
        assert not chosen.notes
        assert set(chosen.labels) == {row.spec.label for row in request.grid}
        names = dict(meta_model(request.profile.model).named_modules())
        assert set(chosen.modules) <= set(names)
        for row in request.grid:
            for training, evaluation in row.jobs:
                assert training.tasks == evaluation.tasks
                assert len(training.tasks) == 1
                assert training.protocol == evaluation.protocol
