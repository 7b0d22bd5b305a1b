"""Benchmarks of QuanTA's layer: against LoRA and its own bounds, and how its cost scales."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig

from baselines.quanta.circuit import Circuit
from baselines.quanta.gpu_benchmark import gpu_outcome
from baselines.quanta.work import RANK, Work, quanta
from quanta_bench.benchmark import Benchmark, Case, Conditions, Finding, Outcome, Target, at_most
from quanta_bench.timing import interleave, time_ratio

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOKENS = 512

WIDTHS = (512, 1024, 2048, 4096, 8192)
COLOURS = ("#000000", "#E69F00", "#0072B2")
COUNTS = (64, 256, 1024, 4096)  # tokens, at the second of the widths


class LayerBenchmark(Benchmark):
    """Forward and backward pass of one adapted layer, against LoRA and bare matrix products."""

    name = "layer"
    title = "One QuanTA layer, forward and backward, against LoRA r=8 and its bare matrix products"
    place = 10
    settings: tuple[tuple[int, tuple[int, ...], Target, Target | None], ...] = (
        (4096, (16, 8, 8, 4), at_most(1.25), at_most(1.1)),
        (4096, (16, 16, 16), at_most(1.30), at_most(1.1)),
        (576, (9, 8, 8), at_most(1.6), None),
        (576, (6, 6, 4, 4), at_most(1.6), None),
    )

    def run(self, conditions: Conditions) -> Outcome:
        """Time every setting in bfloat16 autocast and, unless quick, in float32.

        On a GPU the settings are those of `gpu_benchmark`.
        """
        if conditions.device == "cuda":
            return gpu_outcome(conditions, torch.device("cuda"))
        cases = []
        dtypes = conditions.choose((torch.float32, torch.bfloat16), quick=(torch.bfloat16,))
        for width, dims, over_lora, over_bare in self.settings:
            for dtype in dtypes:
                title = f"{width}, {'-'.join(map(str, dims))}, {dtype_name(dtype)}"
                conditions.tell(title)
                cases.append(
                    self._case(conditions, title, width, dims, dtype, over_lora, over_bare)
                )
        return Outcome(
            cases=cases,
            notes=[
                f"{TOKENS} tokens. LoRA is peft's, r={RANK}, on the same frozen layer; bfloat16 is "
                "a bfloat16 layer under autocast with float32 adapters, as in training.",
                "The bare chain is the frozen layer and products of the gates' shapes without data "
                "movement. It computes nothing useful: a lower bound for one product per gate. "
                "A plan that merges gates can be faster.",
                "The reference is the circuit as one einsum in opt_einsum's contraction order, "
                "with autograd, on top of the frozen layer.",
            ],
        )

    def _case(
        self,
        conditions: Conditions,
        title: str,
        width: int,
        dims: tuple[int, ...],
        dtype: torch.dtype,
        over_lora: Target,
        over_bare: Target | None,
    ) -> Case:
        work = Work(width, TOKENS, dtype)
        circuit = Circuit.all_pairs(dims)
        calls = {
            "LoRA": work.adapted(LoraConfig(r=RANK, target_modules=["0"])),
            "ours": work.adapted(quanta(dims, recompute="never")),
            "ours, recomputing": work.adapted(quanta(dims, recompute="always")),
            "bare chain": work.bare(circuit, recompute=False),
            "bare chain, recomputing": work.bare(circuit, recompute=True),
        }
        if conditions.quick:
            for slow in ("bare chain, recomputing", "ours, recomputing"):
                del calls[slow]
        sides = {
            side.name: side
            for side in interleave(
                calls,
                rounds=conditions.choose(15, quick=5) if width < 1000 else conditions.choose(7, 3),
                least=0.02,
                work=TOKENS,
                unit="tokens",
            )
        }

        reference, beside = interleave(
            {"reference": work.einsum(circuit), "LoRA": calls["LoRA"]},
            rounds=conditions.choose(3, quick=1),
            work=TOKENS,
            unit="tokens",
        )

        def against(over: str, under: str, target: Target | None = None) -> Finding:
            ratio = time_ratio(sides[over], sides[under], target=target)
            return ratio.model_copy(update={"title": f"{over} / {under}"})

        findings = [
            against("ours", "LoRA", over_lora),
            against("ours", "bare chain", over_bare),
            against("bare chain", "LoRA"),
            time_ratio(reference, beside).model_copy(update={"title": "reference / LoRA"}),
        ]
        if not conditions.quick:
            findings.append(against("ours, recomputing", "bare chain, recomputing"))
        bound = bound_over_lora(circuit)
        plan = circuit.plan(TOKENS)
        return Case(
            title=title,
            sides=[*sides.values(), reference],
            findings=findings,
            notes=[
                f"Multiply-adds of gates and frozen layer: {bound:.2f} of LoRA's.",
                f"Plan: {plan}",
            ],
        )


class GrowthBenchmark(Benchmark):
    """How the time of a layer scales with its width, the tokens and the number of axes."""

    name = "growth"
    title = "How a QuanTA layer's cost grows with width, tokens and axes"
    place = 80

    def run(self, conditions: Conditions) -> Outcome:
        """Time forward and backward pass of the circuit alone, in float32."""
        widths = conditions.choose(WIDTHS, quick=WIDTHS[:2])
        tokens = conditions.choose(COUNTS, quick=COUNTS[:2])
        settings = [(width, TOKENS, axes) for width in widths for axes in (3, 4, 5)]
        settings += [(widths[1], count, axes) for count in tokens for axes in (3, 4, 5)]
        cases = []
        for width, count, axes in settings:
            dims = balanced(width, axes)
            circuit = Circuit.all_pairs(dims)
            title = f"{width}, {'-'.join(map(str, dims))}, {count} tokens"
            conditions.tell(title)
            work = Work(width, count, torch.float32)
            ours, low_rank = interleave(
                {"ours": work.circuit(circuit), "LoRA": work.lora()},
                rounds=conditions.choose(5, quick=3),
                least=0.01,
                work=count,
                unit="tokens",
            )
            rate = 3 * circuit.multiply_adds() * count / median(ours.seconds)
            cases.append(
                Case(
                    title=title,
                    setting={
                        "width": width,
                        "tokens": count,
                        "axes": axes,
                        "multiply_adds": circuit.multiply_adds(),
                    },
                    sides=[ours, low_rank],
                    findings=[
                        Finding(
                            title="billion multiply-adds of the gates a second",
                            value=rate / 1e9,
                            ratio=False,
                        )
                    ],
                )
            )
        return Outcome(
            cases=cases,
            notes=[
                "The adapter alone, without the frozen layer, in float32; LoRA has r=8. "
                "Multiply-adds are the paper's d times the sum of d_m d_n (Sec. 6), three times "
                "for forward and backward."
            ],
        )

    def draw(self, outcome: Outcome) -> Figure:
        """Milliseconds against width and against tokens, beside the paper's formula."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        width = sorted({case.setting["width"] for case in outcome.cases})[1]
        for panel, across, fixed, at in (
            (left, "width", "tokens", float(TOKENS)),
            (right, "tokens", "width", width),
        ):
            chosen = [case for case in outcome.cases if case.setting[fixed] == at]
            # One rate for all, that of the largest case: anything above its line is overhead.
            largest = max(chosen, key=lambda case: case.setting[across])
            seconds = median(largest.sides[0].seconds)
            rate = _work_of(largest) / seconds
            for axes, colour, marker in zip((3, 4, 5), COLOURS, "os^", strict=True):
                own = sorted(
                    (case for case in chosen if case.setting["axes"] == axes),
                    key=lambda case: case.setting[across],
                )
                places = [case.setting[across] for case in own]
                times = [1e3 * median(case.sides[0].seconds) for case in own]
                formula = [1e3 * _work_of(case) / rate for case in own]
                panel.plot(places, times, color=colour, marker=marker, ms=4, label=f"{axes} axes")
                panel.plot(places, formula, color=colour, linestyle=":", lw=1)
            lora: dict[float, float] = {}
            for case in chosen:
                lora[case.setting[across]] = 1e3 * median(case.sides[1].seconds)
            panel.plot(
                sorted(lora), [lora[at] for at in sorted(lora)], color="#7F7F7F", label="LoRA r=8"
            )
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.set_xlabel(across if across == "tokens" else "width d")
            panel.set_title(f"{fixed}: {at:g}", fontsize=9)
            panel.grid(True, color="#DDDDDD", lw=0.6)
            panel.spines[["top", "right"]].set_visible(False)
        left.set_ylabel("milliseconds, forward and backward\ndotted: d times the sum of d_m d_n")
        left.legend(fontsize=8, frameon=False)
        return figure


def _work_of(case: Case) -> float:
    return case.setting["multiply_adds"] * case.setting["tokens"]


def balanced(width: int, axes: int) -> tuple[int, ...]:
    """Split a power of two into axes as equal as possible, largest first."""
    power = width.bit_length() - 1
    return tuple(2 ** (power // axes + (place < power % axes)) for place in range(axes))


def bound_over_lora(circuit: Circuit) -> float:
    """Ratio of multiply-adds of a layer with a circuit to one with LoRA, without recompute.

    The frozen layer counts twice, for forward and backward; trained parts also need gradients.
    """
    width = circuit.in_features
    adapter = 3 * circuit.multiply_adds()
    return (2 * width * width + adapter) / (2 * width * width + 3 * 2 * RANK * width)


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype without its module, such as ``bfloat16``."""
    return str(dtype).removeprefix("torch.")
