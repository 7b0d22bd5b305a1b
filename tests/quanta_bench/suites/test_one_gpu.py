"""The profile for one GPU of 24 GB: every row of Tables 2 to 4 fits, and no rate claims tuning."""

from __future__ import annotations

import pytest

from quanta_bench.costs.gpus import find_gpu
from quanta_bench.costs.plan import Plan, make_plan
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.grid import grid
from quanta_bench.suites.loading import load_suite
from quanta_bench.suites.request import Request

PROFILE = "one-gpu"


def plan(table: str, **choice: str) -> Plan:
    return make_plan(Request.of(load_suite(table), PROFILE, Choice(**choice)))  # type: ignore[arg-type]


# Counting the operations of a model of this size takes seconds a row.
@pytest.mark.parametrize(
    "table",
    ["4", pytest.param("2", marks=pytest.mark.slow), pytest.param("3", marks=pytest.mark.slow)],
)
def test_every_row_fits_the_card(table: str) -> None:
    made = plan(table, size="full")
    assert find_gpu(made.gpu).memory == 24e9
    assert {row.method for row in made.rows} >= {"none", "full", "lora", "quanta"}
    for row in made.rows:
        assert not row.missing
        assert not row.not_counted
        assert row.cost is not None, row.not_estimated
        assert row.cost.gpus == 1, row.label
        assert row.cost.memory_bytes < 24e9, row.label


@pytest.mark.slow
@pytest.mark.parametrize("model", ["qwen2.5-0.5b", "llama3.2-1b"])
def test_other_small_models_fit_too(model: str) -> None:
    """With sizes chosen for their widths; full fine-tuning of 3 B would not."""
    from quanta_bench.models.meta import hub_name

    made = plan("4", model=f"hub:{hub_name(model)}")
    assert [row.label for row in made.rows if row.cost is None or row.cost.gpus > 1] == []


@pytest.mark.slow
def test_three_billion_are_too_many_for_full_fine_tuning_alone() -> None:
    made = plan("4", model="hub:meta-llama/Llama-3.2-3B")
    large = [row.method for row in made.rows if row.cost is None or row.cost.gpus > 1]
    assert large == ["full"]


@pytest.mark.parametrize("table", ["2", "3", "4"])
def test_rates_are_the_papers_and_marked_as_not_tuned(table: str) -> None:
    suite = load_suite(table)
    papers: dict[str, set[float]] = {}
    for row in suite.profiles["paper"].rows:
        papers.setdefault(row.method, set()).add(row.training.get("learning_rate", 0.0))
    for row in grid(suite, PROFILE):
        if row.spec.method == "none":
            continue
        assert row.jobs[0][0].learning_rate in papers[row.spec.method], row.spec.label
        assert row.origin["learning_rate"].startswith("not tuned for this model"), row.spec.label


def test_offline_the_hub_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from quanta_bench.cli.main import app
    from quanta_bench.errors import BenchError

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    words = ["table", "3", "--profile", PROFILE, "--methods", "none", "--results", str(tmp_path)]
    with pytest.raises(BenchError, match=r"hub at https.*(local:DIR|HF_HUB_OFFLINE)"):
        app(words, standalone_mode=False)
