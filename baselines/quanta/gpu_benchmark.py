"""The layer benchmark on a GPU: larger batches, and the number of kernel launches."""

from __future__ import annotations

import torch
from peft import LoraConfig
from torch.profiler import ProfilerActivity, profile

from baselines.quanta import fused
from baselines.quanta.circuit import Circuit
from baselines.quanta.work import RANK, Call, Work, quanta
from quanta_bench.benchmark import Case, Conditions, Finding, Outcome, Target, at_most
from quanta_bench.timing import interleave, time_ratio

SETTINGS: tuple[tuple[int, tuple[int, ...], int, Target, Target | None], ...] = (
    (4096, (16, 8, 8, 4), 512, at_most(1.3), None),
    (4096, (16, 8, 8, 4), 4096, at_most(1.1), at_most(1.35)),
    (4096, (16, 8, 8, 4), 16384, at_most(1.1), at_most(1.35)),
    (4096, (16, 16, 16), 4096, at_most(1.1), None),
    (576, (6, 6, 4, 4), 512, at_most(1.3), None),
    (576, (6, 6, 4, 4), 4096, at_most(1.3), None),
    (576, (9, 8, 8), 4096, at_most(1.3), None),
)
"""Width, axes, vectors, and the target time ratios to LoRA and to the frozen layer."""

MOST_LAUNCHES = 12


def gpu_outcome(conditions: Conditions, device: torch.device) -> Outcome:
    """Time every setting in bfloat16 autocast."""
    cases = []
    for width, dims, tokens, over_lora, over_frozen in conditions.choose(SETTINGS, SETTINGS[:2]):
        title = f"{width}, {'-'.join(map(str, dims))}, {tokens} tokens"
        conditions.tell(title)
        work, circuit = Work(width, tokens, torch.bfloat16, device), Circuit.all_pairs(dims)
        calls = {
            "frozen": work.frozen(),
            "LoRA": work.adapted(LoraConfig(r=RANK, target_modules=["0"])),
            "ours": work.adapted(quanta(dims)),
            "ours, planner": _without_fused_kernels(work.adapted(quanta(dims))),
            "reference": work.einsum(circuit),
        }
        cases.append(_case(conditions, title, calls, tokens, over_lora, over_frozen))
    return Outcome(
        cases=cases,
        notes=[
            f"A bfloat16 layer under autocast with float32 adapters, on {_name(device)}. LoRA is "
            f"peft's, r={RANK}. Times are of consecutive calls, including host time.",
            "The reference is the circuit as one einsum in opt_einsum's contraction order, with "
            "autograd, on top of the frozen layer. Launches are of one forward and backward pass.",
        ],
    )


def _case(
    conditions: Conditions,
    title: str,
    calls: dict[str, Call],
    tokens: int,
    over_lora: Target,
    over_frozen: Target | None,
) -> Case:
    rounds = conditions.choose(15, quick=5)
    sides = {
        side.name: side
        for side in interleave(
            calls, rounds=rounds, warmup=3, least=0.02, work=tokens, unit="tokens"
        )
    }

    def against(over: str, under: str, target: Target | None = None) -> Finding:
        ratio = time_ratio(sides[over], sides[under], target=target)
        return ratio.model_copy(update={"title": f"{over} / {under}"})

    return Case(
        title=title,
        sides=list(sides.values()),
        findings=[
            against("ours", "LoRA", over_lora),
            against("ours", "frozen", over_frozen),
            against("ours", "reference", at_most(1.0)),
            against("ours", "ours, planner"),
            Finding(
                title="launches of ours",
                value=launches(calls["ours"]),
                target=at_most(MOST_LAUNCHES),
                ratio=False,
            ),
        ],
    )


def launches(call: Call) -> int:
    """Number of kernels, copies and fills that a call runs on the GPU; 0 without a GPU."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as run:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return sum(event.device_type.name == "CUDA" for event in run.events() or ())


def _without_fused_kernels(call: Call) -> Call:
    def planned() -> None:
        with fused.disabled():
            call()

    return planned


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
