"""A budget in words, and the settings that come nearest to it."""

from __future__ import annotations

import pytest
from rich.console import Console

from quanta_bench.costs import budget
from quanta_bench.costs.budget import Budget, search
from quanta_bench.errors import UsageError
from quanta_bench.models.meta import Count, count, meta_model
from quanta_bench.plugins import build_method


@pytest.mark.parametrize(
    ("words", "parameters", "percent"),
    [
        ("0.04%", None, 0.04),
        (".5 %", None, 0.5),
        ("460800", 460_800, None),
        ("460,800", 460_800, None),
        ("1,460,800.5", 1_460_800.5, None),
        ("460_800", 460_800, None),
        ("2.7M", 2_700_000, None),
        ("500k", 500_000, None),
        ("1B", 1_000_000_000, None),
    ],
)
def test_words(words: str, parameters: float | None, percent: float | None) -> None:
    found = Budget.parse(words)
    assert found.parameters == (parameters and pytest.approx(parameters))
    assert found.percent == percent


@pytest.mark.parametrize(
    "words",
    [
        "",
        "many",
        "-1M",
        "0",
        "0%",
        "1G",
        "%",
        "1e6",
        "0,04%",
        "0,040%",
        "2,7M",
        "4608,00",
        "1,000,",
    ],
)
def test_words_that_are_no_budget(words: str) -> None:
    with pytest.raises(UsageError, match="A budget is a positive share"):
        Budget.parse(words)


def test_a_share_is_of_what_the_user_says() -> None:
    found = Count(trainable=100, base=900, added=100)
    assert Budget(percent=10).ratio(found, "base+added") == 1
    assert Budget(percent=10).ratio(found, "base") == pytest.approx(10 / 9)
    assert Budget(parameters=50).ratio(found, "base") == 2


def test_the_nearest_of_all_ranks_is_found() -> None:
    # LoRA on q_proj and v_proj of SmolLM2-135M has 57,600 parameters a rank.
    (row,) = search("smollm2-135m", "400k", ["lora"]).methods
    assert (row.settings, row.trainable) == ({"r": 7}, 403_200)
    assert row.ratio == pytest.approx(403_200 / 400_000)


def test_the_papers_quanta_is_found_from_its_share() -> None:
    (row,) = search("llama2-7b", "0.041%", ["quanta"]).methods
    assert sorted(row.settings["dims"]) == [4, 8, 8, 16]
    assert row.trainable == 2_752_512


def test_what_is_reported_is_counted_and_no_listed_size_is_nearer() -> None:
    (row,) = search("smollm2-135m", "0.2%", ["quanta"]).methods
    method = build_method("quanta", {})
    counts = [
        count(meta_model("smollm2-135m"), build_method("quanta", settings)).of_base
        for settings in type(method).sizes(meta_model("smollm2-135m"))
    ]
    assert row.tried == len(counts) > 20
    assert row.percent is not None
    best = min(max(100 * c / 0.2, 0.2 / (100 * c)) for c in counts)
    assert max(row.percent / 0.2, 0.2 / row.percent) == pytest.approx(best)


def test_methods_that_do_not_fit_or_have_one_size_are_named() -> None:
    found = search("gpt2", "1M", ["lora", "qpa", "full"])
    assert {row.method for row in found.methods if row.trainable is None} == {"qpa", "full"}
    console = Console(width=200)
    with console.capture() as drawn:
        console.print(budget.on_screen(found))
    assert "qpa: target_modules: no module is called" in drawn.get()
    assert "c_attn" in drawn.get()
    assert "full: it has only one size" in drawn.get()
