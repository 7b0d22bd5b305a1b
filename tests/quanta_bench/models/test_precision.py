"""The dtype of a frozen base on this machine."""

from __future__ import annotations

import itertools

import pytest
import torch

from quanta_bench.models import precision


@pytest.mark.parametrize("fast", [torch.float32, torch.bfloat16])
def test_other_work_during_most_of_the_timing_does_not_decide(monkeypatch, fast):
    """Every product but one of each dtype is held up, the faster dtype's the longest."""
    count = dict.fromkeys((torch.float32, torch.bfloat16), 0)

    def seconds(dtype: torch.dtype) -> float:
        count[dtype] += 1
        quick = 1.0 if dtype is fast else 2.0
        return quick if count[dtype] == 7 else 50.0 if dtype is fast else 3.0

    monkeypatch.setattr(precision, "_matmul_seconds", seconds)
    monkeypatch.setattr(precision, "_fast_dtypes", {})
    assert precision.fast_dtype("cpu") is fast
    assert precision.fast_dtype("cpu") is fast
    assert set(count.values()) == {precision.ROUNDS}


def test_the_dtypes_are_timed_in_turns(monkeypatch):
    order: list[torch.dtype] = []
    monkeypatch.setattr(precision, "_matmul_seconds", lambda dtype: order.append(dtype) or 1.0)
    monkeypatch.setattr(precision, "_fast_dtypes", {})
    precision.fast_dtype("cpu")
    assert all(one is not other for one, other in itertools.pairwise(order))


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_that_only_emulates_bfloat16_computes_in_float32(monkeypatch, native):
    monkeypatch.setattr(
        "torch.cuda.is_bf16_supported",
        lambda including_emulation=True: native or including_emulation,
    )
    monkeypatch.setattr(precision, "_fast_dtypes", {})
    assert precision.fast_dtype("cuda") is (torch.bfloat16 if native else torch.float32)
