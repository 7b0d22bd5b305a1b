"""Specs: closed, frozen, and named by a hash that later settings leave alone."""

from __future__ import annotations

import pytest
from pydantic import Field, create_model

from quanta_bench.errors import UsageError
from quanta_bench.spec import (
    EvaluationSpec,
    ModelSpec,
    TrainingSpec,
    build,
    canonical,
    identity,
    meta_reference,
)

SPEC = TrainingSpec(method="lora", learning_rate=2e-3)


def test_defaults_do_not_enter_the_name():
    same = TrainingSpec(method="lora", learning_rate=2e-3, batch_size=8, epochs=1)
    assert identity(same) == identity(SPEC)
    assert identity(TrainingSpec(method="lora", learning_rate=2e-3, epochs=2)) != identity(SPEC)


def test_a_setting_added_later_with_a_default_orphans_nothing():
    later = create_model("Later", __base__=TrainingSpec, momentum=(float, Field(0.9)))
    assert identity(later(**SPEC.model_dump())) == identity(SPEC)
    assert identity(later(**SPEC.model_dump(), momentum=0.5)) != identity(SPEC)


def test_the_name_is_pinned():
    """Changing how names are made orphans everything that anybody has computed."""
    assert identity(SPEC, model="a", data={"boolq/train": 1}) == "9d914f975beb"


def test_content_enters_the_name():
    assert identity(SPEC, model="a") != identity(SPEC, model="b")


def test_canonical_json_has_one_form():
    assert canonical({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(float("nan"))


def test_an_unknown_setting_names_the_near_miss():
    with pytest.raises(UsageError, match="Did you mean 'learning_rate'"):
        build(TrainingSpec, {"method": "lora", "learning_rates": 1})


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (TrainingSpec, {"method": "lora", "learning_rate": 0}, "learning_rate: .*greater than 0"),
        (TrainingSpec, {"method": "lora", "batch_size": "many"}, "batch_size: .*integer"),
        (TrainingSpec, {"method": "lora", "loss": "hinge"}, "loss: .*'candidates'"),
        (TrainingSpec, {}, "method: Field required"),
        (EvaluationSpec, {"tasks": ["boolq"], "normaliser": "median"}, "normaliser: "),
    ],
)
def test_refused_values_are_named(kind, values, message):
    with pytest.raises(UsageError, match=message):
        build(kind, values)


@pytest.mark.parametrize(
    ("model", "reference"),
    [
        (ModelSpec.from_reference("local:models/one"), "local:models/one"),
        (ModelSpec(name="gpt2", source="local:models"), "local:models/gpt2"),
        (ModelSpec.from_reference("hub:gpt2"), "gpt2"),
        (ModelSpec.from_reference("hub:someone/tiny@v2"), "someone/tiny@v2"),
        (ModelSpec.from_reference("gpt2"), "gpt2"),
    ],
)
def test_a_model_is_looked_up_where_it_is(model, reference):
    assert meta_reference(model) == reference
