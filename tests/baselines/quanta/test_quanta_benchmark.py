"""QuanTA's benchmarks: what is timed computes what it says, and the bounds are the paper's sums."""

from __future__ import annotations

import functools

import pytest
import torch

from baselines.quanta import Circuit, benchmark, gpu_benchmark
from baselines.quanta.benchmark import (
    GrowthBenchmark,
    LayerBenchmark,
    balanced,
    bound_over_lora,
)
from baselines.quanta.gpu_benchmark import gpu_outcome, launches
from baselines.quanta.work import Work
from quanta_bench.benchmark import Conditions, at_most
from quanta_bench.timing import interleave


@pytest.fixture
def one_round(monkeypatch):
    """One short sample a side: what is looked at is that all sides run, not how long they take."""
    for module in (benchmark, gpu_benchmark):

        @functools.wraps(module.interleave)
        def short(sides, *, rounds, warmup=0, least=0.0, **more):
            return interleave(sides, rounds=1, **more)

        monkeypatch.setattr(module, "interleave", short)


@pytest.mark.parametrize(
    ("dims", "bound"),
    [((16, 8, 8, 4), 1.16), ((16, 16, 16), 1.27), ((9, 8, 8), 1.48), ((6, 6, 4, 4), 1.33)],
)
def test_the_bound_by_multiply_adds(dims, bound):
    assert bound_over_lora(Circuit.all_pairs(dims)) == pytest.approx(bound, abs=0.006)


@pytest.mark.parametrize(
    ("width", "axes", "dims"),
    [(512, 3, (8, 8, 8)), (1024, 4, (8, 8, 4, 4)), (8192, 5, (8, 8, 8, 4, 4))],
)
def test_widths_are_split_evenly(width, axes, dims):
    assert balanced(width, axes) == dims


def test_recomputing_does_not_change_the_bare_chain():
    work = Work(24, 5, torch.float32)
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        work.bare(Circuit.all_pairs((4, 3, 2)), recompute=recompute)()
        found.append(work.x.grad.clone())
    assert torch.equal(*found)


def test_every_side_sends_something_back():
    work = Work(24, 5, torch.float32)
    circuit = Circuit.all_pairs((4, 3, 2))
    for call in (work.einsum(circuit), work.circuit(circuit), work.lora()):
        call()
        assert work.x.grad is not None
        assert work.x.grad.abs().sum() > 0


def test_the_layer_benchmark_runs(one_round, monkeypatch):
    monkeypatch.setattr(LayerBenchmark, "settings", ((24, (4, 3, 2), at_most(1e9), at_most(1e9)),))
    for quick, dtypes in {False: ["float32", "bfloat16"], True: ["bfloat16"]}.items():
        outcome = LayerBenchmark().run(Conditions(quick=quick))
        assert [case.title for case in outcome.cases] == [f"24, 4-3-2, {name}" for name in dtypes]
        for case in outcome.cases:
            assert all(finding.value > 0 for finding in case.findings)
            assert {"ours", "LoRA", "bare chain", "reference"} <= {s.name for s in case.sides}


def test_the_growth_benchmark_runs(one_round, monkeypatch):
    monkeypatch.setattr("baselines.quanta.benchmark.WIDTHS", (32, 64))
    outcome = GrowthBenchmark().run(Conditions(quick=True))
    assert len(outcome.cases) == 12
    left, right = GrowthBenchmark().draw(outcome).axes
    assert [list(line.get_xdata()) for line in left.lines[::2]] == [[32, 64]] * 4
    assert [list(line.get_xdata()) for line in right.lines[::2]] == [[64, 256, 512]] * 4


def test_the_layer_benchmark_of_a_gpu_runs(one_round, monkeypatch):
    """On the CPU, where its sides compute the same and nothing is launched."""
    monkeypatch.setattr(
        "baselines.quanta.gpu_benchmark.SETTINGS",
        2 * ((24, (4, 3, 2), 5, at_most(1e9), at_most(1e9)),),
    )
    outcome = gpu_outcome(Conditions(quick=True), torch.device("cpu"))
    assert [case.title for case in outcome.cases] == 2 * ["24, 4-3-2, 5 tokens"]
    for case in outcome.cases:
        assert [side.name for side in case.sides] == [
            "frozen", "LoRA", "ours", "ours, planner", "reference",
        ]  # fmt: skip
        assert case.findings[-1].value == 0


def test_launches_are_none_without_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert launches(lambda: torch.ones(3) + 1) == 0
