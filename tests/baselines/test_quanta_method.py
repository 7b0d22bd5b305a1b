from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from peft import PeftConfig

from baselines.quanta import QuantaConfig
from baselines.quanta.method import Quanta
from quanta_bench.method import UsageError


def test_settings_are_those_of_the_tuner_but_for_the_seed() -> None:
    own = {field.name: field for field in dataclasses.fields(QuantaConfig)}
    for field in dataclasses.fields(PeftConfig):
        del own[field.name]
    del own["seed"]
    assert own.keys() == Quanta.Config.model_fields.keys()
    for name, field in own.items():
        if name != "target_modules":
            assert Quanta.Config.model_fields[name].default == field.default, name


def test_seed_reaches_the_gates(tiny: Any) -> None:
    method = Quanta.from_settings({"dims": [4, 4, 4]})
    starts = [list(method.trainable(method.adapt(tiny(), seed)).values()) for seed in (0, 0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(starts[0], starts[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(starts[0], starts[2], strict=True))


def test_dims_by_module(tiny: Any) -> None:
    method = Quanta.from_settings({"dims": {"q_proj": [8, 8], ".*": None}})
    trained = method.trainable(method.adapt(tiny(), seed=0))
    q_proj = [v.numel() for name, v in trained.items() if "layers.0.self_attn.q_proj" in name]
    assert q_proj == [64 * 64]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dims": [5, 5, 5]}, r"(?s)does not fit this LlamaForCausalLM.*q_proj.*64"),
        ({"dims": [64]}, "at least two sizes"),
        ({"rectangular": "cut"}, "rectangular: Input should be 'gate' or 'pad'"),
        ({"dim": [8, 8]}, "Did you mean 'dims'"),
    ],
)
def test_bad_settings(tiny: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Quanta.from_settings(settings).adapt(tiny(), seed=0)
