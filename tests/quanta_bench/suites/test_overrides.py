"""``--set``: to whom a setting belongs, and the row's label afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from quanta_bench.errors import UsageError
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.grid import grid
from quanta_bench.suites.loading import load_suite
from quanta_bench.suites.overrides import Overrides, relabelled
from quanta_bench.suites.schema import RowSpec


def test_settings_are_sorted_by_what_they_belong_to() -> None:
    found = Overrides.of(
        {"training.epochs": 2, "evaluation.items": 3, "lora.r": 16, "qpa.settings.r": 4},
        ["lora", "qpa"],
    )
    assert found == Overrides(
        {"epochs": 2}, {"items": 3}, {"lora": {"r": 16}, "qpa": {"settings.r": 4}}
    )


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("epochs", "write training.epochs, evaluation.epochs or METHOD.epochs"),
        ("lora.", "does not say what it belongs to"),
        (".r", "no row has the method ''"),
        ("loar.r", "no row has the method 'loar'. Did you mean 'lora'?"),
        ("trainin.epochs", "Did you mean 'training'?"),
    ],
)
def test_a_key_of_nobody_is_refused(key: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Overrides.of({key: 1}, ["lora", "quanta"])
    assert message in str(caught.value)


def test_a_path_leads_into_nested_settings() -> None:
    row = RowSpec(method="qpa", label="QPA", settings={"settings": {"r": 8, "alpha": 16}})
    changed = Overrides.of({"qpa.settings.r": 4, "qpa.chunk": 64}, ["qpa"]).applied_to(row)
    assert changed.settings == {"settings": {"r": 4, "alpha": 16}, "chunk": 64}
    assert row.settings == {"settings": {"r": 8, "alpha": 16}}
    with pytest.raises(UsageError, match="not a mapping"):
        Overrides.of({"qpa.settings.r.x": 4}, ["qpa"]).applied_to(row)


@pytest.mark.parametrize(
    ("label", "before", "after", "new"),
    [
        ("LoRA r=8", {"r": 8}, {"r": 16}, "LoRA r=16"),
        ("QuanTA 6-6-4-4", {"dims": (6, 6, 4, 4)}, {"dims": [9, 8, 8]}, "QuanTA 9-8-8"),
        ("KronA 64", {"side": 64}, {"side": 32}, "KronA 32"),
        ("Prefix 40 tokens", {"num": 40}, {"num": 20}, "Prefix 20 tokens"),
        ("LoRA r=8", {"r": 8}, {"r": 8, "dropout": 0.1}, "LoRA r=8 (dropout=0.1)"),
        ("QuanTA 8-8", {"r": 8}, {"r": 4}, "QuanTA 8-8 (r=4)"),
        ("LoRA r=8", {"r": 8}, {"r": 8}, "LoRA r=8"),
        ("A 18", {"r": 8}, {"r": 4}, "A 18 (r=4)"),
    ],
)
def test_a_label_says_what_the_row_has(
    label: str, before: dict[str, Any], after: dict[str, Any], new: str
) -> None:
    assert relabelled(label, before, after) == new


def test_rows_of_a_table_take_the_settings_of_their_method() -> None:
    choice = Choice(settings={"lora.r": 16, "training.epochs": 2}, methods=("lora", "dora"))
    lora, dora = grid(load_suite("3"), "embedded", choice)
    assert (lora.spec.label, dora.spec.label) == ("LoRA r=16", "DoRA r=8")
    for row, rank in ((lora, 16), (dora, 8)):
        assert {training.settings["r"] for training, _ in row.jobs} == {rank}
        assert {training.epochs for training, _ in row.jobs} == {2}
    assert lora.origin["r"] == "--set"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quanta.dims": [7, 7]}, "QuanTA 7-7: "),
        ({"quanta.dim": [9, 8, 8]}, "no setting 'dim'. Did you mean 'dims'"),
        ({"quanta.dims": True}, "dims: true is not a valid value"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_loaded(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        grid(load_suite("3"), "embedded", Choice(settings=settings, methods=("quanta",)))
    assert message in str(caught.value)
