"""Faults that published code has, and that the battery would see here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from baselines.full import FullFineTuning
from baselines.lora import Lora


def _small_step_moves(value: torch.Tensor) -> bool:
    """Whether a step of 2^-10 of a weight moves it: half a unit of bfloat16 is at least 2^-9."""
    parameter = torch.nn.Parameter(value.detach().clone())
    parameter.grad = -parameter.detach() * 2.0**-10
    torch.optim.SGD([parameter], lr=1.0).step()
    return not bool(((parameter == value) & (value != 0)).any())


@pytest.mark.parametrize("kind", [FullFineTuning, Lora])
def test_no_step_is_lost_to_bfloat16(kind: Any, tiny: Any) -> None:
    method = kind.from_settings({})
    trained = method.trainable(method.adapt(tiny(dtype=torch.bfloat16), seed=0))
    assert all(_small_step_moves(value) for value in trained.values())


def test_a_cast_to_bfloat16_would_be_seen(tiny: Any) -> None:
    method = FullFineTuning.from_settings({})
    model = method.adapt(tiny(), seed=0).to(torch.bfloat16)
    norms = {name for name in method.trainable(model) if "norm" in name}
    moved = {name for name, v in method.trainable(model).items() if _small_step_moves(v)}
    assert norms
    assert moved == set()
