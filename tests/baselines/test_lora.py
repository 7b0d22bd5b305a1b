"""LoRA and DoRA against their formulas, written out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from baselines.lora import Dora, Lora
from quanta_bench.method import UsageError

X = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def layer(request: pytest.FixtureRequest, train: Any) -> Any:
    """A trained layer of rank 4 and alpha 12: v_proj, 64 to 32."""
    run = train(request.param.from_settings({"r": 4, "alpha": 12}), steps=5)
    return run.model.base_model.model.model.layers[1].self_attn.v_proj


@pytest.mark.parametrize("layer", [Lora], indirect=True)
@torch.no_grad()
def test_lora_is_wx_plus_scaled_bax(layer: Any) -> None:
    weight = layer.base_layer.weight
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.shape == (4, 64)
    assert b.shape == (32, 4)
    assert b.abs().max() > 0
    torch.testing.assert_close(layer(X), X @ weight.T + (12 / 4) * (X @ a.T) @ b.T)


@pytest.mark.parametrize("layer", [Dora], indirect=True)
@torch.no_grad()
def test_dora_is_magnitude_times_direction(layer: Any) -> None:
    weight = layer.base_layer.weight
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    magnitude = layer.lora_magnitude_vector["default"].weight
    v = weight + (12 / 4) * b @ a
    assert not torch.allclose(magnitude, weight.norm(dim=1))
    expected = F.linear(X, magnitude[:, None] * v / v.norm(dim=1, keepdim=True))
    torch.testing.assert_close(layer(X), expected, rtol=1e-4, atol=1e-6)


def test_start(tiny: Any) -> None:
    method = Dora.from_settings({"r": 4})
    model = method.adapt(tiny(), seed=0)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.lora_B["default"].weight.abs().max() == 0
    # Kaiming-uniform with a = sqrt(5) is uniform within 1 / sqrt(in).
    a = layer.lora_A["default"].weight
    assert 0.9 / math.sqrt(64) < a.abs().max() <= 1 / math.sqrt(64)
    norms = layer.base_layer.weight.norm(dim=1)
    torch.testing.assert_close(layer.lora_magnitude_vector["default"].weight, norms)


def test_another_seed_is_another_start(tiny: Any) -> None:
    method = Lora.from_settings({})
    a, b = (next(iter(method.trainable(method.adapt(tiny(), seed)).values())) for seed in (0, 1))
    assert not torch.equal(a, b)


def test_dropout_reaches_the_adapter(tiny: Any) -> None:
    model = Lora.from_settings({"dropout": 0.25}).adapt(tiny(), seed=0)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.lora_dropout["default"].p == 0.25


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, "r: Input should be greater than or equal to 1"),
        ({"dropout": 1.0}, "dropout: Input should be less than 1"),
        ({"target_modules": []}, "target_modules"),
        ({"rank": 8}, r"no setting 'rank'"),
        ({"aplha": 8}, r"Did you mean 'alpha'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Lora.from_settings(settings)
