"""The planner's cost model, measured on the device at hand, and the plans that follow from it."""

from __future__ import annotations

import math
from statistics import median
from typing import NamedTuple

import torch

from baselines.quanta.benchmark import LayerBenchmark, dtype_name
from baselines.quanta.circuit import Circuit
from baselines.quanta.planning import Act, Rates, make_plan, planned_tokens
from baselines.quanta.rates import rates_of
from baselines.quanta.work import Call, Work
from quanta_bench.benchmark import Benchmark, Case, Conditions, Finding, Outcome, at_most
from quanta_bench.timing import interleave, time_ratio

SIZES = (16, 8, 8, 4)
"""Axes of the vectors that are moved."""

SHORT, LONG = (0, 2, 1, 3), (1, 0, 2, 3)
"""Permutations of `SIZES` that keep runs of 4 and of 32 elements together."""

RUNS = SIZES[3], SIZES[2] * SIZES[3]

GATE = 64
"""Rows and columns of a gate's matrix, at which arithmetic and memory traffic both matter."""

COLUMNS = 1024
"""Of the large matrix whose product gives the time of a multiply-add."""

CIRCUITS = tuple((width, dims) for width, dims, *_ in LayerBenchmark.settings)

CALLS = 100
"""Operations on a few elements that are timed together."""

MOST = 1.1
"""Bound on the time of the plan in use over that of the plan by the measured rates."""


class Times(NamedTuple):
    """Seconds of the `operations`, in their order.

    Attributes:
        arithmetic: the vectors times a matrix of `COLUMNS` columns.
        calls: `CALLS` operations on a few elements.
        short, long: permuting axes behind the vectors, in runs of `RUNS`.
        copy: permuting their axes with the vectors last.
        turn: transposing all vectors.
        product: the vectors times a matrix of `GATE` rows and columns.
    """

    arithmetic: float
    calls: float
    short: float
    long: float
    copy: float
    turn: float
    product: float


def rates_from(times: Times, elements: int) -> Rates:
    """The rates that explain times, by the planner's own formulas; none is below zero.

    Args:
        times: the times.
        elements: of all vectors together.
    """
    multiply_add = times.arithmetic / (elements * COLUMNS)
    call = times.calls / CALLS / multiply_add

    def each(seconds: float) -> float:
        return max(0.0, seconds / multiply_add - call) / elements

    run = max(0.0, each(times.short) - each(times.long)) / (1 / RUNS[0] - 1 / RUNS[1])
    return Rates(
        gather=max(0.0, each(times.long) - run / RUNS[1]),
        run=run,
        copy=each(times.copy),
        turn=each(times.turn),
        product=max(0.0, each(times.product) - GATE),
        call=call,
    )


class RatesBenchmark(Benchmark):
    """The costs of everything but arithmetic that the planner assumes, and whether they hold."""

    name = "rates"
    title = "the costs that QuanTA's planner assumes of a device against measured ones"
    place = 90

    def run(self, conditions: Conditions) -> Outcome:
        """Measure the rates; then time each circuit by the plan in use and by theirs."""
        device = torch.device(conditions.device)
        gpu = device.type == "cuda"
        dtypes = (torch.bfloat16,) if gpu else (torch.float32, torch.bfloat16)
        tokens = 4096 if gpu else 512
        cases = []
        for dtype in dtypes[: conditions.choose(2, quick=1)]:
            name = dtype_name(dtype)
            conditions.tell(f"rates in {name}")
            case, measured = measure(conditions, device, dtype, f"rates, {name}", tokens)
            cases.append(case)
            for width, dims in conditions.choose(CIRCUITS, quick=CIRCUITS[2:]):
                title = f"{width}, {'-'.join(map(str, dims))}, {name}"
                conditions.tell(title)
                work = Work(width, tokens, dtype, device)
                cases.append(compare(conditions, title, work, Circuit.all_pairs(dims), measured))
        return Outcome(
            cases=cases,
            notes=[
                "A rate is a cost in multiply-adds of a large matrix product: of an element that "
                "is moved (gather, run, copy, turn) or read and written in a product, or of a "
                "call. Intervals are the range of all rounds.",
                "In parentheses: the rates in use, in `baselines/quanta/rates.py`. They need to "
                "hold only as far as the plans that follow from them are the fastest.",
            ],
        )


def measure(
    conditions: Conditions, device: torch.device, dtype: torch.dtype, title: str, tokens: int
) -> tuple[Case, Rates]:
    """Time the operations that a plan consists of.

    Args:
        conditions: number of rounds.
        device: where.
        dtype: of the vectors.
        title: of the case.
        tokens: number of vectors.

    Returns:
        The rates, medians with the range of all rounds, beside those in use; and the medians.
    """
    sides = interleave(
        operations(tokens, dtype, device),
        rounds=conditions.choose(15, quick=5),
        least=0.002,
    )
    elements = tokens * math.prod(SIZES)
    each = [
        rates_from(Times(*seconds), elements)
        for seconds in zip(*(side.seconds for side in sides), strict=True)
    ]
    assumed = rates_of(device.type)
    measured = Rates(*(median(values) for values in zip(*each, strict=True)))
    findings = []
    for index, name in enumerate(Rates._fields):
        values = sorted(rates[index] for rates in each)
        findings.append(
            Finding(
                title=f"{name} ({assumed[index]:g})",
                value=measured[index],
                low=values[0],
                high=values[-1],
                ratio=False,
            )
        )
    return Case(title=title, sides=sides, findings=findings), measured


def operations(tokens: int, dtype: torch.dtype, device: torch.device) -> dict[str, Call]:
    """What is timed, in the order of `Times`: each once, but `CALLS` calls."""
    width = math.prod(SIZES)
    vectors = torch.ones(tokens, width, dtype=dtype, device=device)
    matrix = torch.ones(width, COLUMNS, dtype=dtype, device=device)
    gate = torch.ones(GATE, GATE, dtype=dtype, device=device)
    few = torch.ones(8, dtype=dtype, device=device)
    first, last = vectors.view(tokens, *SIZES), vectors.view(*SIZES, tokens)

    def calls() -> None:
        for _ in range(CALLS):
            few.add_(1)

    def permute(order: tuple[int, ...]) -> Call:
        return lambda: first.permute(0, *(1 + axis for axis in order)).contiguous()

    return {
        "product of large matrices": lambda: vectors @ matrix,
        f"{CALLS} calls": calls,
        "vectors first, short runs": permute(SHORT),
        "vectors first, long runs": permute(LONG),
        "vectors last": lambda: last.permute(*SHORT, len(SIZES)).contiguous(),
        "transposing": lambda: vectors.mT.contiguous(),
        "product with a gate": lambda: vectors.view(-1, GATE) @ gate,
    }


def compare(
    conditions: Conditions, title: str, work: Work, circuit: Circuit, measured: Rates
) -> Case:
    """Time a circuit, forward and backward, by the plan in use and by that of measured rates."""
    tokens = len(work.x)
    acts = tuple(Act(step.axes, step.in_sizes, step.out_sizes) for step in circuit.steps)
    plans = {
        "plan in use": circuit.plan(tokens, device=work.device),
        "plan by measured rates": make_plan(circuit.sizes, acts, measured, planned_tokens(tokens)),
    }
    used, other = plans.values()
    if used == other:
        return Case(title=title, notes=[f"Both rates give one plan: {used}"])
    sides = interleave(
        {name: work.planned(circuit, plan) for name, plan in plans.items()},
        rounds=conditions.choose(15, quick=5),
        least=0.02,
        work=tokens,
        unit="tokens",
    )
    return Case(
        title=title,
        sides=sides,
        findings=[time_ratio(*sides, target=at_most(MOST))],
        notes=[f"{name}: {plan}" for name, plan in plans.items()],
    )
