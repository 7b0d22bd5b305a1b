"""Rows on models of other widths: every method of a table fits, and says what was chosen."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from quanta_bench.errors import UsageError
from quanta_bench.models import nearest, targets
from quanta_bench.models.meta import meta_model
from quanta_bench.plugins import METHODS
from quanta_bench.suites import fitting
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.grid import GridRow
from quanta_bench.suites.request import make_request

WIDTHS = {48: (4, 2), 64: (4, 4), 80: (4, 1), 96: (6, 3), 100: (5, 5)}
"""Heads, and heads of keys and values, by width."""


def folder(root: Path, width: int) -> str:
    """A model's configuration; its weights are of no use to a count."""
    from transformers import LlamaConfig

    heads, pairs = WIDTHS[width]
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=pairs,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(root / str(width))
    return f"local:{root / str(width)}"


def rows(model: str, choice: Choice) -> dict[str, GridRow]:
    request = make_request("3", "table", "embedded", choice, check=True)
    for row in request.grid:
        assert (row.note in request.profile.notes) == bool(row.note)
    return {row.spec.method: row for row in request.grid}


@pytest.mark.parametrize("width", sorted(WIDTHS))
def test_every_method_fits_every_width(width: int, tmp_path: Path) -> None:
    model = folder(tmp_path, width)
    made = rows(model, Choice(model=model, all_rows=True, seeds=(0,)))
    assert set(made) == {name for name in METHODS if "embedded" in METHODS.get(name).rows}
    for name, row in made.items():
        default = METHODS.get(name).rows["embedded"]
        base = meta_model(model)
        method = METHODS.get(name).from_settings(row.spec.settings)
        adapted = method.adapt(base, 0)  # this raises where it does not fit
        assert bool(method.trainable(adapted)) == method.trains
        changed = row.spec.settings != dict(default.config)
        assert changed == bool(row.note) == (row.spec.label != default.label)
    dims = made["quanta"].spec.settings["dims"]
    assert math.prod(dims) == width
    assert made["quanta"].spec.label == "QuanTA " + "-".join(map(str, dims))
    # One notation, that of the label.
    written = "-".join(map(str, dims))
    assert f"dims={written} instead of dims=6-6-4-4, which does not" in made["quanta"].note
    side = made["krona"].spec.settings["side"]
    heads, pairs = WIDTHS[width]
    assert width % side == 0
    assert (width // heads * pairs) % side == 0
    assert not made["lora"].note


def test_the_nearest_share_is_taken(tmp_path: Path) -> None:
    """By brute force, over every size that the method lists."""
    model = folder(tmp_path, 96)
    row = rows(model, Choice(model=model, methods=("krona",), seeds=(0,)))["krona"]

    def share(name: str, side: int) -> float:
        base = meta_model(name)
        total = sum(value.numel() for value in base.parameters())
        method = METHODS.get("krona").from_settings({**row.spec.settings, "side": side})
        return sum(v.numel() for v in method.trainable(method.adapt(base, 0)).values()) / total

    goal = share("smollm2-135m", 64)
    distances = {side: abs(math.log(share(model, side) / goal)) for side in (1, 2, 4, 8, 16, 3, 48)}
    assert row.spec.settings["side"] == min(distances, key=distances.__getitem__)


def test_what_the_user_set_is_never_chosen_anew(tmp_path: Path) -> None:
    model = folder(tmp_path, 80)

    def quanta(**settings: object) -> GridRow:
        given = {f"quanta.{key}": value for key, value in settings.items()}
        return rows(model, Choice(model=model, methods=("quanta",), settings=given))["quanta"]

    assert quanta(dims=[4, 5, 4]).spec.settings["dims"] == [4, 5, 4]
    assert quanta(dropout=0.5).spec.settings["dropout"] == 0.5
    with pytest.raises(UsageError, match="QuanTA 9-8-8"):
        quanta(dims=[9, 8, 8])


def test_a_method_that_no_size_fits_leaves_its_row_empty(tmp_path: Path) -> None:
    """QuanTA has three axes at least, and 134 is twice a prime."""
    WIDTHS[134] = (1, 1)
    model = folder(tmp_path, 134)
    made = rows(model, Choice(model=model, methods=("lora", "quanta"), seeds=(0,)))
    assert "does not fit" in made["quanta"].missing
    assert not made["quanta"].jobs
    assert made["lora"].jobs


def test_a_model_without_a_configuration_here_is_left_to_its_loading() -> None:
    made = rows("", Choice(model="hub:someone/some-model", methods=("quanta",)))
    assert made["quanta"].spec.settings == dict(METHODS.get("quanta").rows["embedded"].config)


def test_what_was_found_is_found_again_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All methods: those that fit, those of which a size is chosen, and one that no size fits."""
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path / "cache"))
    WIDTHS[134] = (1, 1)
    choices = [
        Choice(model=folder(tmp_path, width), all_rows=True, seeds=(0,)) for width in (80, 134)
    ]
    first = [rows(str(choice.model), choice) for choice in choices]
    assert first[0]["quanta"].note
    assert first[1]["quanta"].missing

    def refuse(*args: object) -> None:
        raise AssertionError("a model is built again")

    for module in (fitting, nearest, targets):
        monkeypatch.setattr(module, "meta_model", refuse)
    targets._module_names.cache_clear()
    assert [rows(str(choice.model), choice) for choice in choices] == first
    # Another configuration in the same folder is another model.
    (tmp_path / "80" / "config.json").write_bytes((tmp_path / "134" / "config.json").read_bytes())
    again = rows(str(choices[0].model), choices[0])
    assert again["quanta"].missing == first[1]["quanta"].missing
