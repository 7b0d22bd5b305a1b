"""The planner's rates, measured: they are those that explain the times, and plans compute alike."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baselines.quanta import Circuit, rates_benchmark
from baselines.quanta.planning import Rates, _run, product_cost
from baselines.quanta.rates import CPU
from baselines.quanta.rates_benchmark import (
    CALLS,
    GATE,
    LONG,
    SHORT,
    SIZES,
    RatesBenchmark,
    Times,
    compare,
    operations,
    rates_from,
)
from baselines.quanta.work import Work
from quanta_bench.benchmark import Conditions
from quanta_bench.timing import interleave

OWN = tuple(range(len(SIZES)))
costs = st.floats(0, 1e4)


@given(st.builds(Rates, *5 * [costs], st.floats(0, 1e9)), st.floats(1e-15, 1e-9))
def test_rates_explain_the_times_that_they_predict(rates: Rates, multiply_add: float) -> None:
    elements = 512 * math.prod(SIZES)

    def moved(order: tuple[int, ...]) -> float:
        each = rates.gather + rates.run / _run(OWN, order, SIZES)
        return each * elements + rates.call

    predicted = [
        elements * math.prod(SIZES) / 4,
        CALLS * rates.call,
        moved(SHORT),
        moved(LONG),
        rates.copy * elements + rates.call,
        rates.turn * elements + rates.call,
        product_cost(elements // GATE, GATE, GATE, rates),
    ]
    found = rates_from(Times(*(multiply_add * cost for cost in predicted)), elements)
    assert found == pytest.approx(rates, rel=1e-6, abs=1e-3)


def test_noise_gives_no_rate_below_zero() -> None:
    assert min(rates_from(Times(1e-3, 1e-3, 1e-6, 1e-5, 0, 0, 0), 4096)) == 0


def test_what_is_timed_moves_what_the_rates_say() -> None:
    done = operations(2, torch.float32, torch.device("cpu"))
    shapes = [tuple(work().shape) for name, work in done.items() if "calls" not in name]  # type: ignore[attr-defined]
    assert shapes == [
        (2, 1024),
        (2, 16, 8, 8, 4),
        (2, 8, 16, 8, 4),
        (16, 8, 8, 4, 2),
        (4096, 2),
        (128, 64),
    ]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(sides: object, *, rounds: int, least: float = 0, **more: object) -> object:
        return interleave(sides, rounds=2, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(rates_benchmark, "interleave", short)
    monkeypatch.setattr(rates_benchmark, "CIRCUITS", 2 * ((24, (4, 3, 2)),))


def test_the_benchmark_shows_measured_rates_beside_those_in_use(quick: None) -> None:
    outcome = RatesBenchmark().run(Conditions(quick=True))
    rates = outcome.cases[0].findings
    assert [finding.title for finding in rates] == [
        f"{name} ({value:g})" for name, value in CPU._asdict().items()
    ]
    for finding in rates:
        assert finding.low is not None
        assert finding.high is not None
        assert 0 <= finding.low <= finding.value <= finding.high


def test_plans_that_differ_are_timed_and_compute_the_same(quick: None) -> None:
    circuit, work = Circuit.all_pairs((6, 6, 4, 4)), Work(576, 64, torch.float32)
    cheap_moves = CPU._replace(gather=0, run=0, copy=0, turn=0, product=0, call=0)
    case = compare(Conditions(), "t", work, circuit, cheap_moves)
    assert [side.name for side in case.sides] == ["plan in use", "plan by measured rates"]
    assert case.findings[0].target is not None
    same = compare(Conditions(), "t", work, circuit, CPU)
    assert not same.sides
    assert "one plan" in same.notes[0]


def test_a_plan_of_any_rates_gives_the_layers_gradients() -> None:
    circuit, work = Circuit.all_pairs((4, 3, 2)), Work(24, 5, torch.float32)
    found = []
    for plan in (circuit.plan(5), circuit.plan(5, device="cuda")):
        torch.manual_seed(0)
        work.planned(circuit, plan)()
        assert work.x.grad is not None
        found.append(work.x.grad.clone())
    torch.testing.assert_close(*found)
    torch.testing.assert_close(found[0], work.output_grad @ work.layer.weight)
