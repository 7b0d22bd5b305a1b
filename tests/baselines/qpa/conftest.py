"""QPA in sizes for a tiny model, and a count of its passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.qpa.generator import WeightGenerator
from baselines.qpa.method import Qpa


@pytest.fixture(scope="session")
def qpa() -> Callable[..., Qpa]:
    """QPA with a small generator; other settings by name."""
    return lambda **options: Qpa(Qpa.Config.model_validate({"chunk": 256, "depth": 2, **options}))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Every generation of weights from here on, as whether it was for gradients."""
    made: list[bool] = []
    forward: Any = WeightGenerator.forward

    def counting(self: WeightGenerator) -> Tensor:
        made.append(torch.is_grad_enabled())
        weights: Tensor = forward(self)
        return weights

    monkeypatch.setattr(WeightGenerator, "forward", counting)
    return made
