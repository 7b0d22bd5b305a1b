"""Times estimated from operators: what is counted, and that two ways give the same."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from quanta_bench.models.operator_costs import CPU, GPU, Rates, estimated_seconds, rates_of


def test_a_product_is_counted_by_its_operations_and_bytes() -> None:
    x, weight, total = torch.zeros(7, 5), torch.zeros(3, 5), torch.zeros(7, 3)
    for rates in (Rates(1, 0, 0), Rates(0, 1, 0), Rates(0, 0, 1), CPU):
        counted = estimated_seconds(lambda: torch.addmm(total, x, weight.mT), rates)
        assert counted == pytest.approx(rates.product(7, 3, 5, 4))
    assert Rates(0, 0, 1).product(7, 3, 5, 4) == 2 * 7 * 3 * 5


def test_views_are_free_and_writes_in_place_are_not() -> None:
    x = torch.zeros(4, 6)
    calls = Rates(1, 0, 0)
    assert estimated_seconds(lambda: x.view(24)[2:].view(2, 11).mT, calls) == 0
    assert estimated_seconds(lambda: x.add_(1), calls) == 1
    assert estimated_seconds(lambda: functional.relu(x) + x, Rates(0, 1, 0)) == (2 + 3) * 24 * 4


def test_a_device_has_rates_of_its_kind() -> None:
    assert rates_of(torch.device("cpu")) is CPU
    assert rates_of(torch.device("cuda", 1)) is GPU
    assert GPU.byte < CPU.byte
